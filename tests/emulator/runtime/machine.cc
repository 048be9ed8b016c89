#include "tests/emulator/runtime/machine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRADWARDEN_RUNTIME_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define GRADWARDEN_RUNTIME_ASAN 1
#endif
#ifdef GRADWARDEN_RUNTIME_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace gradwarden::emulator {
namespace {

// What is freed stays, overwritten, until this much else was freed, so that its place is not given
// out again at once and a late access is seen: by the memory map, and by AddressSanitizer where
// that watches.
constexpr std::size_t kRetiredBytes = std::size_t{64} << 20;

constexpr int kFresh = 0xff;  // NaN as any float type, huge as a count
constexpr int kFreed = 0xdd;
constexpr std::size_t kAlignment = 256;

#ifdef GRADWARDEN_RUNTIME_ASAN
void poison(void* at, std::size_t bytes) { __asan_poison_memory_region(at, bytes); }
void unpoison(void* at, std::size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
#else
void poison(void*, std::size_t) {}
void unpoison(void*, std::size_t) {}
#endif

}  // namespace

Machine& Machine::get() {
  static Machine& only = *new Machine;
  return only;
}

Settings Machine::settings() const {
  const std::lock_guard lock(mutex_);
  return settings_;
}

std::uint64_t Machine::next_seed() {
  const std::lock_guard lock(mutex_);
  return settings_.seed * 0x9e3779b97f4a7c15U + ++seeds_;
}

RuntimeCounters Machine::counters() const {
  const std::lock_guard lock(mutex_);
  return counters_;
}

void Machine::reset_counters() {
  const std::lock_guard lock(mutex_);
  counters_ = {};
}

void Machine::count_blocking(const char* call) {
  const std::lock_guard lock(mutex_);
  ++counters_.blocking_calls[call];
}

int Machine::enter(const char* call) {
  const std::lock_guard lock(mutex_);
  ++counters_.calls[call];
  const std::uint64_t now = ++call_counts_[call];
  const auto it = std::find_if(injections_.begin(), injections_.end(),
                               [&](const Injection& i) { return i.at == now && i.call == call; });
  if (it == injections_.end()) return 0;
  const int error = it->error;
  injections_.erase(it);
  return error;
}

void Machine::inject(const std::string& call, std::uint64_t n, int error) {
  const std::lock_guard lock(mutex_);
  injections_.push_back({call, call_counts_[call] + n, error});
}

void Machine::violate(int device, std::string what, cudaError_t error) {
  const std::lock_guard lock(mutex_);
  violations_.push_back("device " + std::to_string(device) + ": " + std::move(what));
  if (error != cudaSuccess) sticky_.try_emplace(device, error);
}

void Machine::set_sticky(int device, cudaError_t error) {
  const std::lock_guard lock(mutex_);
  sticky_.try_emplace(device, error);
}

cudaError_t Machine::sticky(int device) const {
  const std::lock_guard lock(mutex_);
  const auto it = sticky_.find(device);
  return it == sticky_.end() ? cudaSuccess : it->second;
}

std::vector<std::string> Machine::take_violations() {
  const std::lock_guard lock(mutex_);
  return std::exchange(violations_, {});
}

void Machine::reset() {
  const std::lock_guard lock(mutex_);
  settings_ = {};
  seeds_ = 0;
  counters_ = {};
  call_counts_.clear();
  injections_.clear();
  sticky_.clear();
  violations_.clear();
  epoch_.fetch_add(1, std::memory_order_release);
}

void* Machine::allocate(std::size_t bytes, MemoryMap::Kind kind, int device) {
  void* at = nullptr;
  if (bytes > (std::size_t{1} << 40) || posix_memalign(&at, kAlignment, bytes) != 0) return nullptr;
  std::memset(at, kFresh, bytes);
  const std::lock_guard lock(memory_mutex_);
  allocations_[at] = {bytes, kind};
  memory_map_->add(at, bytes, kind, device);
  return at;
}

bool Machine::release(void* at, MemoryMap::Kind kind) {
  const std::lock_guard lock(memory_mutex_);
  const auto it = allocations_.find(at);
  if (it == allocations_.end() || it->second.second != kind) return false;
  const std::size_t bytes = it->second.first;
  allocations_.erase(it);
  memory_map_->mark_freed(at);
  std::memset(at, kFreed, bytes);
  retire(at, bytes);
  return true;
}

// The place may become ordinary host memory now, so it is no longer known as freed device memory.
void Machine::give_back(void* at, std::size_t bytes) {
  unpoison(at, bytes);
  memory_map_->forget(at);
  std::free(at);
}

void Machine::retire(void* at, std::size_t bytes) {
  poison(at, bytes);
  retired_.emplace_back(at, bytes);
  retired_bytes_ += bytes;
  while (retired_bytes_ > kRetiredBytes) {
    const auto [oldest, size] = retired_.front();
    retired_.pop_front();
    retired_bytes_ -= size;
    give_back(oldest, size);
  }
}

void Machine::release_all() {
  const std::lock_guard lock(memory_mutex_);
  for (const auto& [at, what] : allocations_) {
    memory_map_->forget(at);
    std::free(at);
  }
  allocations_.clear();
  for (const auto& [at, bytes] : retired_) give_back(at, bytes);
  retired_.clear();
  retired_bytes_ = 0;
}

}  // namespace gradwarden::emulator
