// Which memory kernels may reach: ranges with their kind, also those that were freed.
//
// Safe to use from any thread. Owns no memory, only knows of it.
#ifndef GRADWARDEN_TESTS_EMULATOR_MEMORY_MAP_H_
#define GRADWARDEN_TESTS_EMULATOR_MEMORY_MAP_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace gradwarden::emulator {

class MemoryMap {
 public:
  enum class Kind { kDevice, kPinned };
  enum class Place { kInside, kFreed, kOutside };

  struct Range {
    std::uintptr_t begin = 0;
    std::size_t bytes = 0;
    Kind kind = Kind::kDevice;
    int device = 0;
    bool freed = false;

    bool holds(const void* at, std::size_t size) const {
      const auto address = reinterpret_cast<std::uintptr_t>(at);
      return address >= begin && size <= bytes && address - begin <= bytes - size;
    }
  };

  struct Answer {
    Place place = Place::kOutside;
    // Of the memory that holds the first byte, even if the last lies outside; `bytes` 0: none.
    Range range;
  };

  // With `covers_all` everything that kernels may reach is in the map, words for atomics included.
  explicit MemoryMap(bool covers_all = false) : covers_all_(covers_all) {}

  void add(const void* data, std::size_t bytes, Kind kind, int device);
  // Accesses are found to be of freed memory until something else takes the place.
  void mark_freed(const void* data);
  void forget(const void* data);

  Answer find(const void* at, std::size_t bytes) const;
  // Changes whenever a range goes, so that answers can be kept until then.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  bool covers_all() const { return covers_all_; }

 private:
  const bool covers_all_;
  std::atomic<std::uint64_t> generation_{1};
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, Range> ranges_;
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_MEMORY_MAP_H_
