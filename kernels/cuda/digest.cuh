// Digests of what several ranks hold (kernels/numerics/digest.h), for the audit of replicas.
//
// Whole numbers add up to the same in any order, so blocks add theirs by integer atomics and the
// result is still the same bits for every grid. Bound by arithmetic, about 20 integer operations
// per element; only steps that audit launch it.
#ifndef GRADWARDEN_KERNELS_CUDA_DIGEST_CUH_
#define GRADWARDEN_KERNELS_CUDA_DIGEST_CUH_

#include <cstdint>

#include "kernels/cuda/block_fold.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/inspection.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/numerics/digest.h"

namespace gradwarden::kernels::cuda {

struct DigestSum {
  std::uint64_t sum;

  __device__ static DigestSum nothing() { return {0}; }
  __device__ void add(const DigestSum& o) { sum += o.sum; }
  __device__ DigestSum from_above(unsigned width) const {
    return {__shfl_down_sync(kFullMask, sum, width)};
  }
};

// The i-th element of a vector, zero-extended. `i` is known to the compiler.
template <typename Bits>
__device__ inline std::uint64_t bits_in_vector(const Vector& v, unsigned i) {
  if constexpr (sizeof(Bits) == 8) {
    return v.word[2 * i] | static_cast<std::uint64_t>(v.word[2 * i + 1]) << 32;
  } else if constexpr (sizeof(Bits) == 4) {
    return v.word[i];
  } else {
    return v.word[i / 2] >> (16 * (i % 2)) & 0xffffU;
  }
}

// Of one thread's part of a chunk whose first element is element `begin` of the shard. Only where
// elements follow one another in the whole tensor too do vectors spare the sum of the index.
template <typename Bits>
__device__ inline std::uint64_t digest_chunk(const Plan& plan, const TensorEntry& tensor,
                                             std::uint64_t begin, std::uint32_t count) {
  constexpr unsigned kPerVector = kVectorBytes / sizeof(Bits);
  const auto* data = static_cast<const unsigned char*>(tensor.data) + begin * sizeof(Bits);
  const bool straight = tensor.map == TensorEntry::kNoMap && aligned(data, kVectorBytes);
  const std::uint32_t vectors = straight ? count / kPerVector : 0;
  std::uint64_t sum = 0;
#pragma unroll 1
  for (std::uint32_t at = threadIdx.x; at < vectors; at += kBlockThreads) {
    const Vector v = load_vector(data + std::uint64_t{at} * kVectorBytes);
    const std::uint64_t index = tensor.offset + begin + std::uint64_t{at} * kPerVector;
#pragma unroll
    for (unsigned i = 0; i < kPerVector; ++i) {
      sum += element_digest(index + i, bits_in_vector<Bits>(v, i));
    }
  }
#pragma unroll 1
  for (std::uint32_t i = vectors * kPerVector + threadIdx.x; i < count; i += kBlockThreads) {
    const Bits bits = load_scalar<Bits>(data + std::uint64_t{i} * sizeof(Bits));
    sum += element_digest(index_in_whole(plan.maps, tensor, begin + i), bits);
  }
  return sum;
}

__device__ inline std::uint64_t digest_any_chunk(const Plan& plan, const ChunkEntry& chunk) {
  const TensorEntry& tensor = plan.tensors[chunk.tensor];
  const std::uint64_t size = chunk_elements(tensor.dtype);
  const std::uint64_t begin = std::uint64_t{chunk.index} * size;
  const std::uint64_t left = tensor.count - begin;
  const auto count = static_cast<std::uint32_t>(left < size ? left : size);
  switch (dtype_bytes(tensor.dtype)) {  // the whole block alike
    case 8:
      return digest_chunk<std::uint64_t>(plan, tensor, begin, count);
    case 4:
      return digest_chunk<std::uint32_t>(plan, tensor, begin, count);
    default:
      return digest_chunk<std::uint16_t>(plan, tensor, begin, count);
  }
}

// One launch for all tensors of a plan; blocks take chunks in turn, and pass over those of tensors
// that no other rank holds. The grid may have any size.
__global__ void __launch_bounds__(kBlockThreads, 4) digest_kernel(const DigestArguments a) {
  for (std::uint64_t c = blockIdx.x; c < a.plan.chunk_count; c += gridDim.x) {
    const ChunkEntry chunk = a.plan.chunks[c];
    const std::uint32_t region = a.regions[chunk.tensor];
    if (region == DigestArguments::kNoRegion) continue;  // the whole block alike
    DigestSum sum{digest_any_chunk(a.plan, chunk)};
    fold_block(sum);
    if (threadIdx.x != 0) continue;
    // CUDA's atomics know 64 bits by this name.
    auto* whole = reinterpret_cast<unsigned long long*>(&a.digests[region]);
    atomicAdd(global_word(whole), static_cast<unsigned long long>(sum.sum));
  }
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_DIGEST_CUH_
