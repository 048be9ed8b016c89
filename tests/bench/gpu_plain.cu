#include <cuda_runtime.h>

#include "tests/bench/gpu_plain.h"

namespace gradwarden::bench {
namespace {

__global__ void __launch_bounds__(256)
    plain_kernel(const float4* data, std::uint64_t vectors, float* out) {
  float sum = 0;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * blockDim.x;
  for (std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < vectors;
       i += stride) {
    const float4 v = __ldg(&data[i]);
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  for (int width = 16; width > 0; width /= 2) sum += __shfl_down_sync(0xffffffffU, sum, width);
  __shared__ float warps[8];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < 8; ++i) sum += warps[i];
    out[blockIdx.x] = sum;
  }
}

}  // namespace

cudaError_t plain_sum_of_squares(const void* data, std::uint64_t bytes, float* out,
                                 cudaStream_t stream) {
  plain_kernel<<<kPlainBlocks, 256, 0, stream>>>(static_cast<const float4*>(data), bytes / 16, out);
  return cudaPeekAtLastError();
}

}  // namespace gradwarden::bench
