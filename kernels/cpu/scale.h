// The apply step in host memory: multiply gradients in place, and clamp them.
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

// What happens to the elements of one tensor.
struct Scaling {
  double factor = 1;
  double limit = 0;  // elements are clamped to +-limit after scaling; 0: not
};

// Each element becomes element * factor: for fp64 one float64 product; for fp32, bf16 and fp16 the
// products of split_factor() (kernels/numerics/clip.h) rounded to float. Then it is clamped, by the
// limit rounded to float for those three, and rounded to nearest even to the element's type. NaN
// stays NaN; Inf stays Inf unless there is a limit. A factor of exactly 1 without a limit touches
// no memory. scalings[i] is that of tensors[i].
void scale(std::span<const Tensor> tensors, std::span<const Scaling> scalings,
           ParallelFor& threads) noexcept;

// The same for all tensors.
void scale(std::span<const Tensor> tensors, double factor, ParallelFor& threads) noexcept;

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_SCALE_H_
