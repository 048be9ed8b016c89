// One pass over gradient memory: per chunk the sum of |g|^p, the largest |g|, counts of NaN, Inf
// and zeros, and the first non-finite element.
//
// How it reaches memory speed and still keeps 1e-6 over the whole range of float, without a float64
// operation per element (many GPUs run float64 at 1/64 of the rate):
//   - each thread holds a run of 8 or 16 elements in registers, all loads issued before the first
//   use;
//   - the run is multiplied by a power of two that brings its largest magnitude near 1, so squares
//   neither overflow nor lose what matters to underflow;
//   - squares are added in float as a balanced tree: at most 5 roundings of 2^-24 each, 1.5e-7 on
//   the norm at worst;
//   - one float64 multiply-add per run brings the sum back to scale: 1/8 or less per element.
// NaN and Inf show in the largest exponent of the run; only such a run is looked at element by
// element. The order of every addition depends on the element's index alone: same input, same bits,
// whatever the grid and the alignment.
#ifndef GRADWARDEN_KERNELS_CUDA_STATISTICS_CUH_
#define GRADWARDEN_KERNELS_CUDA_STATISTICS_CUH_

#include <cmath>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/block_fold.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/element.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/plan.h"

namespace gradwarden::kernels::cuda {

using ThreadStatistics = Partial<std::uint32_t>;

inline constexpr std::uint32_t kMagnitudeMask = 0x7fffffffU;
inline constexpr std::uint32_t kInfinityBits = 0x7f800000U;

// 2^exponent for -1022 <= exponent <= 1023.
__device__ inline double power_of_two(int exponent) {
  return double_of_bits(static_cast<std::uint64_t>(exponent + 1023) << 52);
}

// For these p the powers of a run near 1 fit float and powf is accurate enough: an error in a power
// is p times one in the norm. Other p are rare and go by float64, element by element.
__device__ inline bool float_powers(double p) { return p >= 1 && p <= 5; }

// A balanced sum of term(0) to term(kCount - 1), unrolled by recursion so that all stays in
// registers.
template <unsigned kFirst, unsigned kCount, typename Term>
__device__ inline float tree_sum(Term term) {
  if constexpr (kCount == 1)
    return term(kFirst);
  else
    return tree_sum<kFirst, kCount / 2>(term) + tree_sum<kFirst + kCount / 2, kCount / 2>(term);
}

// Counts what is not finite and puts zeros in its place. `position(i)` is the index of the run's
// i-th element in the chunk.
template <unsigned kCount, typename Position>
__device__ inline void take_out_non_finite(std::uint32_t (&magnitude)[kCount], Position position,
                                           ThreadStatistics& s) {
#pragma unroll  // registers cannot be indexed at run time
  for (unsigned i = 0; i < kCount; ++i) {
    if (magnitude[i] >= kInfinityBits) {
      if (magnitude[i] == kInfinityBits)
        ++s.inf_count;
      else
        ++s.nan_count;
      const std::uint32_t at = position(i);
      if (at < s.first_non_finite) s.first_non_finite = at;
      magnitude[i] = 0;
      --s.zero_count;  // counted as a zero below; it is none
    }
  }
}

template <unsigned kCount>
__device__ inline std::uint32_t largest_of(const std::uint32_t (&magnitude)[kCount]) {
  std::uint32_t largest = 0;
#pragma unroll
  for (unsigned i = 0; i < kCount; ++i) largest = magnitude[i] > largest ? magnitude[i] : largest;
  return largest;
}

// The run's sum of powers, `largest` being its largest magnitude and not 0. The scale is 2^-shift.
// Shifts stop at 126, where 2^-shift is still a normal float: the largest magnitudes then scale to
// just below 4, subnormal ones to 2^-23 or more, and both leave squares far inside float. What is
// rounded away in scaling down is below 2^-126 beside a 1.
template <NormType kNorm, unsigned kCount>
__device__ inline void add_powers(const std::uint32_t (&magnitude)[kCount], std::uint32_t largest,
                                  double p, ThreadStatistics& s) {
  const int exponent = static_cast<int>(largest >> 23) - 126;
  const int shift = exponent > 126 ? 126 : exponent;
  const float scale = float_of_bits(static_cast<std::uint32_t>(127 - shift) << 23);
  const auto p32 = static_cast<float>(p);
  const auto term = [&](unsigned i) {
    const float m = float_of_bits(magnitude[i]) * scale;
    if constexpr (kNorm == NormType::kTwo)
      return m * m;
    else if constexpr (kNorm == NormType::kOne)
      return m;
    else
      return m == 0 ? 0.0F : powf(m, p32);
  };
  const auto sum = static_cast<double>(tree_sum<0, kCount>(term));
  if constexpr (kNorm == NormType::kTwo) {
    s.power_sum = fma(sum, power_of_two(2 * shift), s.power_sum);
  } else if constexpr (kNorm == NormType::kOne) {
    s.power_sum = fma(sum, power_of_two(shift), s.power_sum);
  } else {
    // In two factors: one alone may leave float64 where the product does not.
    const double half = exp2(0.5 * shift * p);
    s.power_sum += sum * half * half;
  }
}

// Adds a run of magnitudes (bits of non-negative floats) to the thread's statistics.
template <NormType kNorm, unsigned kCount, typename Position>
__device__ inline void add_run(std::uint32_t (&magnitude)[kCount], Position position, double p,
                               ThreadStatistics& s) {
  std::uint32_t largest = largest_of(magnitude);
  if (largest >= kInfinityBits) {
    take_out_non_finite(magnitude, position, s);
    largest = largest_of(magnitude);
  }
#pragma unroll
  for (unsigned i = 0; i < kCount; ++i) s.zero_count += magnitude[i] == 0 ? 1U : 0U;
  if (largest == 0) return;
  const auto max_abs = static_cast<double>(float_of_bits(largest));
  s.max_abs = max_abs > s.max_abs ? max_abs : s.max_abs;
  if constexpr (kNorm != NormType::kInfinity) add_powers<kNorm>(magnitude, largest, p, s);
}

// One chunk of elements of at most 32 bits. What lies in whole, aligned vectors goes by 128-bit
// loads, the rest element by element, with the same elements in the same places of the same runs.
template <typename Element, NormType kNorm>
__device__ inline void read_chunk(const unsigned char* data, std::uint32_t count, double p,
                                  ThreadStatistics& s) {
  constexpr unsigned kPerVector = Element::kPerVector;
  constexpr unsigned kRun = kPerVector * kRunVectors;
  const std::uint32_t vectors = aligned(data, kVectorBytes) ? count / kPerVector : 0;
#pragma unroll 1  // more would need more registers than the occupancy leaves
  for (unsigned start = 0; start * kPerVector < count; start += kRunVectors * kBlockThreads) {
    // Neighbouring threads read neighbouring vectors: each load of a warp is one stretch of 512
    // bytes.
    const unsigned first = start + threadIdx.x;
    const auto position = [first](unsigned i) {
      return (first + i / kPerVector * kBlockThreads) * kPerVector + i % kPerVector;
    };
    std::uint32_t magnitude[kRun];
    if (first + (kRunVectors - 1) * kBlockThreads < vectors) {
      Vector v[kRunVectors];
#pragma unroll
      for (unsigned k = 0; k < kRunVectors; ++k) {
        v[k] = load_vector(data + std::uint64_t{first + k * kBlockThreads} * kVectorBytes);
      }
#pragma unroll
      for (unsigned i = 0; i < kRun; ++i) {
        const float g = Element::get(v[i / kPerVector], i % kPerVector);
        magnitude[i] = bits_of_float(g) & kMagnitudeMask;
      }
    } else {
#pragma unroll
      for (unsigned i = 0; i < kRun; ++i) {
        magnitude[i] = 0;
        if (position(i) < count) {
          magnitude[i] = bits_of_float(load_element<Element>(data, position(i))) & kMagnitudeMask;
        } else {
          --s.zero_count;  // padding is no zero
        }
      }
    }
    add_run<kNorm>(magnitude, position, p, s);
  }
}

template <NormType kNorm>
__device__ inline void add_double(double value, std::uint32_t at, double p, ThreadStatistics& s) {
  const double magnitude = fabs(value);
  if (!(magnitude <= 1.7976931348623157e308)) {  // NaN too
    if (magnitude != magnitude)
      ++s.nan_count;
    else
      ++s.inf_count;
    if (at < s.first_non_finite) s.first_non_finite = at;
    return;
  }
  if (magnitude == 0) {
    ++s.zero_count;
    return;
  }
  s.max_abs = magnitude > s.max_abs ? magnitude : s.max_abs;
  if constexpr (kNorm == NormType::kTwo) s.power_sum = fma(magnitude, magnitude, s.power_sum);
  if constexpr (kNorm == NormType::kOne) s.power_sum += magnitude;
  if constexpr (kNorm == NormType::kOther) s.power_sum += pow(magnitude, p);
}

// In float64: for elements of 64 bits, and for the powers that float cannot hold. Powers beyond
// float64 saturate to infinity, never NaN.
template <NormType kNorm>
__device__ inline void read_chunk_as_double(DType dtype, const unsigned char* data,
                                            std::uint32_t count, double p, ThreadStatistics& s) {
#pragma unroll 1
  for (std::uint32_t at = threadIdx.x; at < count; at += kBlockThreads) {
    add_double<kNorm>(load_as_double(dtype, data, at), at, p, s);
  }
}

template <NormType kNorm>
__device__ inline void read_any_chunk(const TensorEntry& tensor, std::uint32_t chunk, double p,
                                      ThreadStatistics& s) {
  const std::uint64_t size = chunk_elements(tensor.dtype);
  const std::uint64_t begin = std::uint64_t{chunk} * size;
  const std::uint64_t left = tensor.count - begin;
  const auto count = static_cast<std::uint32_t>(left < size ? left : size);
  const auto* data =
      static_cast<const unsigned char*>(tensor.data) + begin * dtype_bytes(tensor.dtype);
  // Branches that the whole block takes alike.
  if (tensor.dtype == DType::kFloat64 || (kNorm == NormType::kOther && !float_powers(p))) {
    read_chunk_as_double<kNorm>(tensor.dtype, data, count, p, s);
  } else if (tensor.dtype == DType::kFloat32) {
    read_chunk<Float32Element, kNorm>(data, count, p, s);
  } else if (tensor.dtype == DType::kBFloat16) {
    read_chunk<BFloat16Element, kNorm>(data, count, p, s);
  } else {
    read_chunk<Float16Element, kNorm>(data, count, p, s);
  }
}

// Powers by powf and pow are bound by arithmetic, not by memory, and need registers more than
// neighbours: 64 each. The usual norms get the occupancy that hides memory latency.
constexpr unsigned resident_blocks(NormType norm) {
  return norm == NormType::kOther ? 4 : kBlocksPerProcessor;
}

// One launch for all tensors of all types: blocks take chunks in turn. out[c] belongs to chunk c
// alone, so nothing is shared between blocks and no atomic is needed. The grid may have any size;
// blocks beyond chunk_count have no work.
template <NormType kNorm>
__global__ void __launch_bounds__(kBlockThreads, resident_blocks(kNorm))
    statistics_kernel(const TensorEntry* tensors, const ChunkEntry* chunks,
                      std::uint64_t chunk_count, double p, ChunkStatistics* out) {
  for (std::uint64_t c = blockIdx.x; c < chunk_count; c += gridDim.x) {
    const ChunkEntry chunk = chunks[c];
    ThreadStatistics s = ThreadStatistics::nothing();
    read_any_chunk<kNorm>(tensors[chunk.tensor], chunk.index, p, s);
    fold_block(s);
    if (threadIdx.x == 0) {
      out[c] = {s.power_sum, s.max_abs, s.nan_count, s.inf_count, s.zero_count, s.first_non_finite};
    }
  }
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_STATISTICS_CUH_
