#include "tests/emulator/memory_map.h"

#include <iterator>

namespace gradwarden::emulator {

void MemoryMap::add(const void* data, std::size_t bytes, Kind kind, int device) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::lock_guard lock(mutex_);
  // What was freed is forgotten where the allocator hands its addresses out again.
  auto it = ranges_.lower_bound(begin);
  if (it != ranges_.begin()) {
    const Range& before = std::prev(it)->second;
    if (before.freed && before.begin + before.bytes > begin) it = ranges_.erase(std::prev(it));
  }
  while (it != ranges_.end() && it->second.freed && it->first < begin + bytes) {
    it = ranges_.erase(it);
  }
  ranges_[begin] = {begin, bytes, kind, device, false};
  generation_.fetch_add(1, std::memory_order_release);
}

void MemoryMap::mark_freed(const void* data) {
  const std::lock_guard lock(mutex_);
  const auto it = ranges_.find(reinterpret_cast<std::uintptr_t>(data));
  if (it != ranges_.end()) it->second.freed = true;
  generation_.fetch_add(1, std::memory_order_release);
}

void MemoryMap::forget(const void* data) {
  const std::lock_guard lock(mutex_);
  ranges_.erase(reinterpret_cast<std::uintptr_t>(data));
  generation_.fetch_add(1, std::memory_order_release);
}

MemoryMap::Answer MemoryMap::find(const void* at, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  auto next = ranges_.upper_bound(reinterpret_cast<std::uintptr_t>(at));
  if (next == ranges_.begin()) return {};
  const Range& range = std::prev(next)->second;
  if (!range.holds(at, 1)) return {};
  if (range.freed) return {Place::kFreed, range};
  return {range.holds(at, bytes) ? Place::kInside : Place::kOutside, range};
}

}  // namespace gradwarden::emulator
