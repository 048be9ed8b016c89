// Puts the heap of the program into managed memory, which CPU and GPU both reach, so that tests
// that hand vectors to kernels run on real hardware as they stand.
//
// One arena of managed memory, made at the first use; freed blocks are kept by size. Where there is
// no GPU, the ordinary heap.
#include <cuda_runtime_api.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>

namespace {

constexpr std::size_t kArenaBytes = std::size_t{4} << 30;
constexpr std::size_t kSmallest = 32;
constexpr std::size_t kClasses = 40;

class Arena {
 public:
  void* take(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (!tried_) start();
    const std::size_t size = std::bit_ceil(bytes < kSmallest ? kSmallest : bytes);
    const auto kind = static_cast<std::size_t>(std::countr_zero(size));
    if (begin_ == nullptr || kind >= kClasses) return std::aligned_alloc(kSmallest, size);
    if (Block* free = free_[kind]) {
      free_[kind] = free->next;
      return free;
    }
    if (used_ + size > kArenaBytes) return nullptr;
    void* at = begin_ + used_;
    used_ += size;
    return at;
  }

  void give(void* at, std::size_t bytes) {
    const auto* address = static_cast<std::byte*>(at);
    if (begin_ == nullptr || address < begin_ || address >= begin_ + kArenaBytes) {
      std::free(at);
      return;
    }
    const std::lock_guard lock(mutex_);
    const std::size_t size = std::bit_ceil(bytes < kSmallest ? kSmallest : bytes);
    const auto kind = static_cast<std::size_t>(std::countr_zero(size));
    free_[kind] = new (at) Block{free_[kind]};
  }

 private:
  struct Block {
    Block* next;
  };

  // The runtime allocates too while it starts: those blocks are of the ordinary heap.
  void start() {
    tried_ = true;
    void* made = nullptr;
    int count = 0;
    mutex_.unlock();
    const bool good = cudaGetDeviceCount(&count) == cudaSuccess && count > 0 &&
                      cudaMallocManaged(&made, kArenaBytes) == cudaSuccess;
    mutex_.lock();
    if (good) begin_ = static_cast<std::byte*>(made);
  }

  std::mutex mutex_;
  bool tried_ = false;
  std::byte* begin_ = nullptr;
  std::size_t used_ = 0;
  std::array<Block*, kClasses> free_{};
};

// Never destroyed: static objects free memory after everything else.
Arena& arena() {
  alignas(Arena) static std::byte place[sizeof(Arena)];
  static Arena* made = new (place) Arena;
  return *made;
}

// The size stands in front of each block, since not every delete tells it.
constexpr std::size_t kHeader = 32;

void* allocate(std::size_t bytes) {
  void* at = arena().take(bytes + kHeader);
  if (at == nullptr) throw std::bad_alloc();
  *static_cast<std::size_t*>(at) = bytes;
  return static_cast<std::byte*>(at) + kHeader;
}

void release(void* at) noexcept {
  if (at == nullptr) return;
  std::byte* start = static_cast<std::byte*>(at) - kHeader;
  arena().give(start, *reinterpret_cast<std::size_t*>(start) + kHeader);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void operator delete(void* at) noexcept { release(at); }
void operator delete(void* at, std::size_t) noexcept { release(at); }
