// A bounded queue of variable-sized records between two threads, without locks.
//
// One thread calls reserve/commit, one other thread front/pop. Neither allocates, waits or makes a
// system call; when the ring is full reserve() says so and the record is the caller's to drop.
#ifndef GRADWARDEN_CLIENT_REPORTER_BYTE_RING_H_
#define GRADWARDEN_CLIENT_REPORTER_BYTE_RING_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace gradwarden::reporter {

class ByteRing {
 public:
  explicit ByteRing(std::size_t bytes)
      : capacity_(round_up(bytes)), bytes_(std::make_unique<unsigned char[]>(capacity_)) {}

  // Room for a record of `size` bytes (contiguous, 8-byte aligned), or null if there is none. Not
  // visible to the reader before commit().
  unsigned char* reserve(std::size_t size) noexcept {
    const std::size_t need = kPrefix + round_up(size);
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t tail = tail_.load(std::memory_order_acquire);
    const std::size_t at = head % capacity_;
    // A record never wraps: what is left at the end is skipped if it is too small.
    const std::size_t skip = capacity_ - at < need ? capacity_ - at : 0;
    if (need > capacity_ || capacity_ - (head - tail) < skip + need) return nullptr;
    if (skip != 0) put(at, kSkip);
    put((head + skip) % capacity_, size);
    reserved_ = head + skip + need;
    return &bytes_[(head + skip) % capacity_ + kPrefix];
  }

  void commit() noexcept { head_.store(reserved_, std::memory_order_release); }

  // The oldest record, or null if there is none. Valid until pop().
  const unsigned char* front(std::size_t& size) noexcept {
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail == head) return nullptr;
    std::size_t at = tail % capacity_;
    if (get(at) == kSkip) {
      tail += capacity_ - at;
      at = 0;
    }
    size = get(at);
    popped_ = tail + kPrefix + round_up(size);
    return &bytes_[at + kPrefix];
  }

  void pop() noexcept { tail_.store(popped_, std::memory_order_release); }

  // The end of what is in it now, and whether the reader has come as far.
  std::uint64_t end() const noexcept { return head_.load(std::memory_order_acquire); }
  bool reached(std::uint64_t end) const noexcept {
    return tail_.load(std::memory_order_relaxed) >= end;
  }

  bool empty() const noexcept {
    return head_.load(std::memory_order_acquire) == tail_.load(std::memory_order_acquire);
  }

 private:
  static constexpr std::size_t kPrefix = sizeof(std::uint64_t);
  static constexpr std::uint64_t kSkip = ~std::uint64_t{0};

  static constexpr std::size_t round_up(std::size_t bytes) { return (bytes + 7) / 8 * 8; }
  void put(std::size_t at, std::uint64_t value) { std::memcpy(&bytes_[at], &value, sizeof value); }
  std::uint64_t get(std::size_t at) const {
    std::uint64_t value = 0;
    std::memcpy(&value, &bytes_[at], sizeof value);
    return value;
  }

  const std::size_t capacity_;
  const std::unique_ptr<unsigned char[]> bytes_;
  alignas(64) std::atomic<std::uint64_t> head_{0};  // written by the producer
  std::uint64_t reserved_ = 0;
  alignas(64) std::atomic<std::uint64_t> tail_{0};  // written by the consumer
  std::uint64_t popped_ = 0;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_BYTE_RING_H_
