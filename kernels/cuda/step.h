// What the decision of a step leaves in device memory: for the apply kernel, for optimizers that
// take found_inf and grad_scale, and for the record.
#ifndef GRADWARDEN_KERNELS_CUDA_STEP_H_
#define GRADWARDEN_KERNELS_CUDA_STEP_H_

#include <cstdint>

#include "kernels/numerics/clip.h"
#include "kernels/numerics/decision.h"

namespace gradwarden::kernels::cuda {

// By what the elements of one group, or with adaptive clipping of one tensor, are multiplied:
// `factor` for fp64, its parts for the rest.
struct Factor {
  double factor = 1;
  Float32Factor parts;
  double limit = 0;  // elements are clamped to +-this after scaling; 0: not
};

struct StepResult {
  StepVerdict verdict;
  double norm = 0;  // unscaled, pre-clip, of the finite elements
  double max_abs = 0;
  double loss_scale = 0;  // 0: none
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  std::uint32_t clipped_groups = 0;   // whose own threshold shrank them more than the whole's
  std::uint32_t clipped_tensors = 0;  // that adaptive clipping shrank more than that
  std::uint32_t update = 1;           // 0: the step is skipped and gradients stay untouched
  // Exactly 0 or 1: fused optimizers skip only when it equals 1.
  float found_inf = 0;
  // Loss scale / clip coefficient: fused optimizers divide gradients by it. Never infinite.
  float grad_scale = 1;
  float learning_rate_factor = 1;  // below 1 when the step is to be taken with a smaller rate
};

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_STEP_H_
