// How the host reads mapped memory that kernels write at the same time: word by word, so that no
// read is a data race to the compiler; whether what was read belongs together, the protocols of the
// rings say. Words of a ring are acquired each, so that what is looked at after them is looked at
// later: a fence would do, but ThreadSanitizer does not know fences.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_MAPPED_WORDS_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_MAPPED_WORDS_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace gradwarden::guard {

inline std::uint64_t acquire_word(const std::uint64_t& word) {
  return std::atomic_ref(const_cast<std::uint64_t&>(word)).load(std::memory_order_acquire);
}

inline std::uint64_t relaxed_word(const std::uint64_t& word) {
  return std::atomic_ref(const_cast<std::uint64_t&>(word)).load(std::memory_order_relaxed);
}

template <typename T>
T copy_words(const void* at) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 8 == 0);
  const auto* words = static_cast<const std::uint64_t*>(at);
  std::uint64_t raw[sizeof(T) / 8];
  for (std::size_t i = 0; i < sizeof(T) / 8; ++i) raw[i] = acquire_word(words[i]);
  T value;
  std::memcpy(&value, raw, sizeof value);
  return value;
}

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_MAPPED_WORDS_H_
