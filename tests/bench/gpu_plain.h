// The yardstick of the GPU benchmark: the sum of squares of one flat buffer of float32, the
// simplest kernel that reads it once.
#ifndef GRADWARDEN_TESTS_BENCH_GPU_PLAIN_H_
#define GRADWARDEN_TESTS_BENCH_GPU_PLAIN_H_

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gradwarden::bench {

// Enqueues it. `bytes` is a multiple of 16; one partial sum per block goes to `out` (kPlainBlocks).
inline constexpr unsigned kPlainBlocks = 2048;
cudaError_t plain_sum_of_squares(const void* data, std::uint64_t bytes, float* out,
                                 cudaStream_t stream);

}  // namespace gradwarden::bench

#endif  // GRADWARDEN_TESTS_BENCH_GPU_PLAIN_H_
