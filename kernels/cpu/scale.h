// The apply step in host memory: multiply gradients in place by one factor.
#ifndef GRADWARDEN_KERNELS_CPU_SCALE_H_
#define GRADWARDEN_KERNELS_CPU_SCALE_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/parallel_for.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels {

struct Tensor {
  void* data = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::kFloat32;
};

// Each element becomes element * factor: for fp64 one float64 product; for fp32, bf16 and fp16 the
// products of split_factor() (kernels/numerics/clip.h) rounded to float and then, to nearest even,
// to the element's type. NaN stays NaN and Inf stays Inf. A factor of exactly 1 touches no memory.
void scale(std::span<const Tensor> tensors, double factor, ParallelFor& threads) noexcept;

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_SCALE_H_
