// How the threads of a block join their partial statistics: by halving, in an order fixed by the
// thread's number.
#ifndef GRADWARDEN_KERNELS_CUDA_BLOCK_FOLD_CUH_
#define GRADWARDEN_KERNELS_CUDA_BLOCK_FOLD_CUH_

#include <cstdint>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/plan.h"

namespace gradwarden::kernels::cuda {

// What one thread gathers. 32-bit counts within a chunk, 64-bit ones above.
template <typename Count>
struct Partial {
  static constexpr Count kNone = static_cast<Count>(~Count{0});

  double power_sum;
  double max_abs;
  Count nan_count;
  Count inf_count;
  Count zero_count;
  Count first_non_finite;

  __device__ static Partial nothing() { return {0, 0, 0, 0, 0, kNone}; }

  __device__ void add(const Partial& o) {
    power_sum += o.power_sum;
    max_abs = o.max_abs > max_abs ? o.max_abs : max_abs;
    nan_count += o.nan_count;
    inf_count += o.inf_count;
    zero_count += o.zero_count;
    first_non_finite =
        o.first_non_finite < first_non_finite ? o.first_non_finite : first_non_finite;
  }

  // The values of the lane `width` above.
  __device__ Partial from_above(unsigned width) const {
    return {__shfl_down_sync(kFullMask, power_sum, width),
            __shfl_down_sync(kFullMask, max_abs, width),
            __shfl_down_sync(kFullMask, nan_count, width),
            __shfl_down_sync(kFullMask, inf_count, width),
            __shfl_down_sync(kFullMask, zero_count, width),
            __shfl_down_sync(kFullMask, first_non_finite, width)};
  }
};

// Folds the upper lanes of a warp onto the lower ones. Valid in lane 0.
template <typename Sum>
__device__ inline void fold_warp(Sum& s) {
  for (unsigned width = kWarpSize / 2; width > 0; width /= 2) s.add(s.from_above(width));
}

// Folds the block: warps by shuffles, then the first warp folds their results from shared memory.
// Valid in thread 0. All threads of the block call it.
template <typename Sum>
__device__ inline void fold_block(Sum& s) {
  constexpr unsigned kWarps = kBlockThreads / kWarpSize;
  GRADWARDEN_SHARED(Sum, warps, kWarps);
  fold_warp(s);
  if (threadIdx.x % kWarpSize == 0) warps[threadIdx.x / kWarpSize] = s;
  __syncthreads();
  if (threadIdx.x < kWarpSize) {
    s = Sum::nothing();
    if (threadIdx.x < kWarps) s = warps[threadIdx.x];
    fold_warp(s);
  }
  __syncthreads();  // the next call writes `warps` again
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_BLOCK_FOLD_CUH_
