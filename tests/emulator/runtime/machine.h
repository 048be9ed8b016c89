// The state of the emulated machine that is of no single stream: settings, counters, injected
// failures, sticky errors, what was found wrong, and memory.
//
// One per process, never destroyed, since streams may still run when the process ends. Safe from
// any thread.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_MACHINE_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_MACHINE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/emulator/memory_map.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden::emulator {

struct Settings {
  int device_count = 16;
  int multiprocessors = 4;
  unsigned max_delay = 50;  // microseconds
  Order order = Order::kAscending;
  std::uint64_t seed = 1;
};

class Machine {
 public:
  static Machine& get();

  Settings settings() const;
  template <typename Change>
  void change(Change change) {
    const std::lock_guard lock(mutex_);
    change(settings_);
  }
  std::uint64_t next_seed();  // another one for each stream

  template <typename Change>
  void count(Change change) {
    const std::lock_guard lock(mutex_);
    change(counters_);
  }
  RuntimeCounters counters() const;
  void reset_counters();
  void count_blocking(const char* call);

  // Counts the call; the error injected for it, or 0.
  int enter(const char* call);
  void inject(const std::string& call, std::uint64_t n, int error);

  // A bug of the code under test. With an error, it becomes the device's sticky one.
  void violate(int device, std::string what, cudaError_t error);
  void set_sticky(int device, cudaError_t error);
  cudaError_t sticky(int device) const;
  std::vector<std::string> take_violations();

  // While it closes, queued work is dropped and whoever waits gives up.
  bool closing() const { return closing_.load(std::memory_order_acquire); }
  void set_closing(bool closing) { closing_.store(closing, std::memory_order_release); }
  // Counts resets, so that what threads remember of before is known as old.
  std::uint64_t epoch() const { return epoch_.load(std::memory_order_acquire); }
  void reset();  // all but memory

  const std::shared_ptr<MemoryMap>& memory_map() const { return memory_map_; }
  // Null when there is none left.
  void* allocate(std::size_t bytes, MemoryMap::Kind kind, int device);
  // False if nothing of that kind was allocated there.
  bool release(void* at, MemoryMap::Kind kind);
  void release_all();

 private:
  struct Injection {
    std::string call;
    std::uint64_t at;  // the value of the call's own count
    int error;
  };

  void retire(void* at, std::size_t bytes);
  void give_back(void* at, std::size_t bytes);

  mutable std::mutex mutex_;
  Settings settings_;
  std::uint64_t seeds_ = 0;
  RuntimeCounters counters_;
  std::map<std::string, std::uint64_t> call_counts_;  // not reset with the counters
  std::vector<Injection> injections_;
  std::map<int, cudaError_t> sticky_;
  std::vector<std::string> violations_;
  std::atomic<bool> closing_{false};
  std::atomic<std::uint64_t> epoch_{1};

  const std::shared_ptr<MemoryMap> memory_map_ = std::make_shared<MemoryMap>(true);
  std::mutex memory_mutex_;
  std::map<void*, std::pair<std::size_t, MemoryMap::Kind>> allocations_;
  std::deque<std::pair<void*, std::size_t>> retired_;  // freed, kept for a while
  std::size_t retired_bytes_ = 0;
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_MACHINE_H_
