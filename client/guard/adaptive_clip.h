// Adaptive gradient clipping on the host: each rank's sums by tensor, and what all ranks' sums make
// of each tensor's coefficient.
#ifndef GRADWARDEN_CLIENT_GUARD_ADAPTIVE_CLIP_H_
#define GRADWARDEN_CLIENT_GUARD_ADAPTIVE_CLIP_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/reading.h"
#include "gradwarden/guard.h"
#include "kernels/numerics/group_policy.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::guard {

// True if any option or rule asks for adaptive clipping.
bool clips_adaptively(const GuardOptions& options);

// The ratio of each tensor of the binding; 0: not clipped so. Empty where none is. Throws Error
// where a tensor that is to be clipped has no parameter.
std::vector<double> adaptive_ratios(const Binding& binding,
                                    std::span<const kernels::GroupPolicy> groups);

// The parameters of the binding; null if there are none.
const BoundList* parameters_of(const Binding& binding);

class AdaptiveClip {
 public:
  // At bind: allocates. No ratios: off.
  void plan(std::vector<double> ratios, double least_norm, double norm_type);

  bool on() const noexcept { return !ratios_.empty(); }
  std::size_t tensor_count() const noexcept { return ratios_.size(); }

  // This rank's sums, weighted.
  std::span<const kernels::TensorSums> summarize(const Reading& gradients,
                                                 const Reading& parameters) noexcept;

  // Coefficients from the summaries of all ranks, gathered end to end.
  void decide(const void* gathered, std::size_t world_size, std::size_t stride, std::size_t groups,
              double loss_scale) noexcept;

  double coefficient(std::uint32_t tensor) const noexcept { return coefficients_[tensor]; }
  std::span<const double> coefficients() const noexcept { return coefficients_; }

 private:
  std::vector<double> ratios_;  // by tensor
  double least_norm_ = 0;
  double norm_type_ = 2;
  std::vector<kernels::TensorSums> sums_;
  std::vector<double> coefficients_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_ADAPTIVE_CLIP_H_
