// What applies to one group of tensors beside the policy of the whole.
#ifndef GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_
#define GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_

#include "kernels/numerics/clip.h"
#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

struct GroupPolicy {
  double max_norm = 0;       // clip the group by its own norm; 0: off
  double value_limit = 0;    // clamp its unscaled elements to +-this after clipping; 0: off
  double adaptive_clip = 0;  // adaptive clipping of each of its tensors; 0: off
};

// By what the group's elements are multiplied, given the whole's coefficient: the smaller of the
// two, so that both norms are within their thresholds and nothing is shrunk more than that takes.
GRADWARDEN_HD inline double group_coefficient(const GroupPolicy& policy, double group_norm,
                                              double whole) {
  const double own = clip_coefficient(group_norm, policy.max_norm);
  return own < whole ? own : whole;
}

// The limit that the group's elements need: 0, so that memory stays untouched where nothing else is
// to be done, when even the largest is within it after `coefficient`. `max_abs` is unscaled, of
// elements that are all finite. The margin covers what rounding to float may add.
GRADWARDEN_HD inline double needed_limit(const GroupPolicy& policy, double max_abs,
                                         double coefficient) {
  return max_abs * coefficient <= policy.value_limit * (1 - 1e-6) ? 0.0 : policy.value_limit;
}

// Adaptive gradient clipping (Brock et al. 2021, arXiv 2102.06171) of one tensor: its gradient's
// norm is kept within `ratio` times its parameter's norm, of which a smaller one than `least`
// counts as `least`, so that a tensor that starts at zero can grow. ratio <= 0: do not clip.
GRADWARDEN_HD inline double adaptive_coefficient(double ratio, double least, double gradient_norm,
                                                 double parameter_norm) {
  if (!(ratio > 0)) return 1.0;
  const double limit = ratio * (parameter_norm > least ? parameter_norm : least);
  return gradient_norm > limit ? limit / gradient_norm : 1.0;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_
