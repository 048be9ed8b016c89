// What memory alone costs: the least that a kernel reading (or reading and writing) it must take.
#ifndef GRADWARDEN_TESTS_BENCH_KERNEL_PLAIN_READ_H_
#define GRADWARDEN_TESTS_BENCH_KERNEL_PLAIN_READ_H_

#include <cstdint>

namespace gradwarden::bench {

// The sum of the memory's 64-bit words; `bytes` is a multiple of 1024.
std::uint64_t plain_sum(const void* data, std::uint64_t bytes) noexcept;

// Adds 0 to each word in place: one read and one write.
void plain_update(void* data, std::uint64_t bytes) noexcept;

}  // namespace gradwarden::bench

#endif  // GRADWARDEN_TESTS_BENCH_KERNEL_PLAIN_READ_H_
