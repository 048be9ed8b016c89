// Which SIMD targets the kernels are compiled for. Included before Highway, once per target too.
//
// Sizeless vectors (SVE, RVV) cannot be kept in arrays of accumulators; their processors run the
// fixed-size targets.
#ifndef GRADWARDEN_KERNELS_CPU_SIMD_TARGETS_H_
#define GRADWARDEN_KERNELS_CPU_SIMD_TARGETS_H_

#include "hwy/detect_targets.h"

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#endif  // GRADWARDEN_KERNELS_CPU_SIMD_TARGETS_H_
