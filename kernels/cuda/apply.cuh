// The one write to gradient memory: clip, unscale and clamp in a single pass.
//
// Returns without touching gradient memory when the step is skipped, and passes over groups whose
// factor is exactly 1 when there is no clamp. What a vector holds is written back only if it
// changed, so that clamping a healthy step reads and does not write.
#ifndef GRADWARDEN_KERNELS_CUDA_APPLY_CUH_
#define GRADWARDEN_KERNELS_CUDA_APPLY_CUH_

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/step.h"

namespace gradwarden::kernels::cuda {

// element * first * second, each product rounded to float, then clamped. A NaN stays one: it
// compares as neither above nor below the limit. Without a clamp the limit is infinite.
struct ScaleFloat {
  float first;
  float second;
  float limit;
  __device__ float operator()(float g) const {
    const float scaled = g * first * second;
    return scaled > limit ? limit : scaled < -limit ? -limit : scaled;
  }
};

struct ScaleDouble {
  double factor;
  double limit;
  __device__ double operator()(double g) const {
    const double scaled = g * factor;
    return scaled > limit ? limit : scaled < -limit ? -limit : scaled;
  }
};

__device__ inline bool differ(const Vector& a, const Vector& b) {
  return ((a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1]) | (a.word[2] ^ b.word[2]) |
          (a.word[3] ^ b.word[3])) != 0;
}

template <typename Element, typename Scale>
__device__ inline void apply_chunk(unsigned char* data, std::uint32_t count, Scale scale) {
  const std::uint32_t vectors = aligned(data, kVectorBytes) ? count / Element::kPerVector : 0;
  // One vector at a time: with up to 2,048 threads resident that keeps 32 KiB in flight on each
  // multiprocessor, enough to cover the latency of memory, and two would spill on sm_100.
#pragma unroll 1
  for (std::uint32_t at = threadIdx.x; at < vectors; at += kBlockThreads) {
    const Vector v = load_vector_in_place(data + std::uint64_t{at} * kVectorBytes);
    const Vector scaled = Element::map(v, scale);
    if (differ(scaled, v)) store_vector(data + std::uint64_t{at} * kVectorBytes, scaled);
  }
  using Bits = typename Element::Bits;
#pragma unroll 1
  for (std::uint32_t i = vectors * Element::kPerVector + threadIdx.x; i < count;
       i += kBlockThreads) {
    unsigned char* at = data + std::uint64_t{i} * Element::kBytes;
    const Bits bits = load_scalar<Bits>(at);
    const Bits scaled = Element::narrow(scale(Element::widen(bits)));
    if (scaled != bits) store_scalar<Bits>(at, scaled);
  }
}

__device__ inline void apply_any_chunk(const TensorEntry& tensor, std::uint32_t chunk,
                                       const Factor& factor, double limit) {
  const std::uint64_t size = chunk_elements(tensor.dtype);
  const std::uint64_t begin = std::uint64_t{chunk} * size;
  const std::uint64_t left = tensor.count - begin;
  const auto count = static_cast<std::uint32_t>(left < size ? left : size);
  auto* data = static_cast<unsigned char*>(tensor.data) + begin * dtype_bytes(tensor.dtype);
  const ScaleFloat scale{factor.parts.first, factor.parts.second, static_cast<float>(limit)};
  switch (tensor.dtype) {  // the whole block alike
    case DType::kFloat32:
      apply_chunk<Float32Element>(data, count, scale);
      break;
    case DType::kBFloat16:
      apply_chunk<BFloat16Element>(data, count, scale);
      break;
    case DType::kFloat16:
      apply_chunk<Float16Element>(data, count, scale);
      break;
    case DType::kFloat64:
      apply_chunk<Float64Element>(data, count, ScaleDouble{factor.factor, limit});
      break;
  }
}

// One launch for all tensors; blocks take chunks in turn. Elements are independent, so the grid may
// have any size. `by_tensor`: there is a factor for each tensor, else one for each group.
__global__ void __launch_bounds__(kBlockThreads, kBlocksPerProcessor)
    apply_kernel(const TensorEntry* tensors, const ChunkEntry* chunks, std::uint64_t chunk_count,
                 const Factor* factors, bool by_tensor, const StepResult* result) {
  if (result->update == 0) return;
  for (std::uint64_t c = blockIdx.x; c < chunk_count; c += gridDim.x) {
    const ChunkEntry chunk = chunks[c];
    const TensorEntry& tensor = tensors[chunk.tensor];
    const Factor factor = factors[by_tensor ? tensor.id : tensor.group];
    const bool clamp = factor.limit > 0;
    if (factor.factor == 1.0 && !clamp) continue;
    apply_any_chunk(tensor, chunk.index, factor,
                    clamp ? factor.limit : static_cast<double>(INFINITY));
  }
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_APPLY_CUH_
