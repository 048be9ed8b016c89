// What only the host knows of a step (its time, its batches), kept until the record of the step
// comes back from the device.
//
// One thread adds, one takes; neither waits, allocates or locks. Steps come in the order in which
// they are enqueued. When the ring is full, because records come back late, what is added is left
// out.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_ANNOTATIONS_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_ANNOTATIONS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace gradwarden::guard {

class Annotations {
 public:
  static constexpr std::size_t kSlots = 256;
  static constexpr std::size_t kMaxIds = 64;
  static constexpr std::size_t kTextBytes = 4096;  // of all ids of a step; the rest is left out

  Annotations() : slots_(kSlots) {}

  void add(std::uint64_t step, std::uint64_t time_unix_ns,
           std::span<const std::string_view> batch_ids) noexcept {
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (tail - head_.load(std::memory_order_acquire) == kSlots) return;
    Slot& slot = slots_[tail % kSlots];
    slot.step = step;
    slot.time_unix_ns = time_unix_ns;
    slot.count = 0;
    std::size_t used = 0;
    for (const std::string_view id : batch_ids) {
      if (slot.count == kMaxIds || used + id.size() > kTextBytes) break;
      if (!id.empty()) std::memcpy(slot.text.data() + used, id.data(), id.size());
      slot.length[slot.count++] = static_cast<std::uint32_t>(id.size());
      used += id.size();
    }
    tail_.store(tail + 1, std::memory_order_release);
  }

  // The first annotation of `step`, which is then gone, with those before it; false if there is
  // none. Views in `batch_ids` (room for kMaxIds) hold until the next call.
  bool take(std::uint64_t step, std::uint64_t& time_unix_ns,
            std::vector<std::string_view>& batch_ids) noexcept {
    batch_ids.clear();
    if (held_) head_.fetch_add(1, std::memory_order_release);
    held_ = false;
    const std::uint64_t tail = tail_.load(std::memory_order_acquire);
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    for (std::uint64_t at = head; at != tail; ++at) {
      const Slot& slot = slots_[at % kSlots];
      if (slot.step != step) continue;
      time_unix_ns = slot.time_unix_ns;
      std::size_t used = 0;
      for (std::uint32_t i = 0; i < slot.count; ++i) {
        batch_ids.emplace_back(slot.text.data() + used, slot.length[i]);
        used += slot.length[i];
      }
      head_.store(at, std::memory_order_release);
      held_ = true;
      return true;
    }
    // A step that nobody announced. Keep what waits, unless it is so much that later steps would
    // find no room.
    if (tail - head == kSlots) head_.store(tail, std::memory_order_release);
    return false;
  }

 private:
  struct Slot {
    std::uint64_t step = 0;
    std::uint64_t time_unix_ns = 0;
    std::uint32_t count = 0;
    std::array<std::uint32_t, kMaxIds> length{};
    std::array<char, kTextBytes> text{};
  };

  std::vector<Slot> slots_;
  std::atomic<std::uint64_t> head_{0};
  std::atomic<std::uint64_t> tail_{0};
  bool held_ = false;  // the taker's: the slot at head_ is in use
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_ANNOTATIONS_H_
