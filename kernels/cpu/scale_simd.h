// The inner loop of scale(), by SIMD with run-time dispatch.
#ifndef GRADWARDEN_KERNELS_CPU_SCALE_SIMD_H_
#define GRADWARDEN_KERNELS_CPU_SCALE_SIMD_H_

#include <cstdint>

#include "kernels/cpu/scale.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::simd {

// Scales and clamps `count` elements at `data` (any alignment) in place, as scale() documents.
void scale_elements(void* data, std::uint64_t count, DType dtype, const Scaling& scaling) noexcept;

}  // namespace gradwarden::kernels::simd

#endif  // GRADWARDEN_KERNELS_CPU_SCALE_SIMD_H_
