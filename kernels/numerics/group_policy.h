// What applies to one group of tensors beside the policy of the whole.
#ifndef GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_
#define GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_

#include "kernels/numerics/clip.h"
#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

struct GroupPolicy {
  double max_norm = 0;     // clip the group by its own norm; 0: off
  double value_limit = 0;  // clamp its unscaled elements to +-this after clipping; 0: off
};

// By what the group's elements are multiplied, given the whole's coefficient: the smaller of the
// two, so that both norms are within their thresholds and nothing is shrunk more than that takes.
GRADWARDEN_HD inline double group_coefficient(const GroupPolicy& policy, double group_norm,
                                              double whole) {
  const double own = clip_coefficient(group_norm, policy.max_norm);
  return own < whole ? own : whole;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_GROUP_POLICY_H_
