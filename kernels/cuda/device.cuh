// The little that kernels need beside plain C++, named so that the same source compiles with nvcc
// and, for the emulated GPU of tests/emulator, with a host compiler.
//
// Rules that keep that possible (and are good for real GPUs too): kernels are plain functions in
// .cuh files without host runtime code; shared memory is declared through GRADWARDEN_SHARED; warp
// operations use full masks; block sizes are multiples of 32; no thread returns before a barrier
// that others reach; 16-bit values are converted to float before arithmetic; a fused multiply-add
// is written as fmaf or fma, since nvcc fuses by itself and g++ does not (and kernels are compiled
// with -fmad=false, so that both give the same bits); gradient memory is reached only through the
// functions of memory.cuh; a word that threads share in global memory only through global_word().
#ifndef GRADWARDEN_KERNELS_CUDA_DEVICE_CUH_
#define GRADWARDEN_KERNELS_CUDA_DEVICE_CUH_

#include <cstdint>

#include "kernels/numerics/portable.h"

#ifdef GRADWARDEN_EMULATOR
#include GRADWARDEN_EMULATOR  // names the header that stands in for CUDA
#else
#include <cuda_runtime.h>
// Uninitialised on purpose: who reads before writing has a bug, and the emulator reports it.
#define GRADWARDEN_SHARED(type, name, count) __shared__ type name[count]
#endif

namespace gradwarden::kernels::cuda {

#ifndef GRADWARDEN_EMULATOR
// A word of global memory for atomics. The emulator's own remembers who touched it, and how.
template <typename T>
__device__ inline T* global_word(T* at) {
  return at;
}
#endif

inline constexpr unsigned kFullMask = 0xffffffffU;
inline constexpr unsigned kWarpSize = 32;

// Blocks of 256 threads that must fit on a multiprocessor at once for 75 % of its threads: 6 x 256
// of 2,048, which leaves each thread 40 registers. A multiprocessor of sm_75 holds 1,024 threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
inline constexpr unsigned kBlocksPerProcessor = 4;
#else
inline constexpr unsigned kBlocksPerProcessor = 6;
#endif

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_DEVICE_CUH_
