#include "client/guard/adaptive_clip.h"

#include <algorithm>
#include <cmath>

#include "client/guard/declaration.h"
#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

void add(const Reading& reading, double norm_type, double kernels::TensorSums::*member,
         std::span<kernels::TensorSums> sums) {
  for (std::size_t i = 0; i < reading.segments().size(); ++i) {
    const Segment& segment = reading.segments()[i];
    const kernels::Statistics& s = reading.statistics()[i];
    double& sum = sums[segment.tensor].*member;
    sum = std::isinf(norm_type) ? std::max(sum, s.max_abs)
                                : sum + s.power_sum * (1.0 / segment.replicas);
  }
}

}  // namespace

bool clips_adaptively(const GuardOptions& options) {
  return options.adaptive_clip > 0 ||
         std::any_of(options.group_rules.begin(), options.group_rules.end(),
                     [](const GroupRule& rule) { return rule.adaptive_clip.value_or(0) > 0; });
}

const BoundList* parameters_of(const Binding& binding) {
  for (const BoundList& list : binding.others) {
    if (list.name == kParameterList) return &list;
  }
  return nullptr;
}

std::vector<double> adaptive_ratios(const Binding& binding,
                                    std::span<const kernels::GroupPolicy> groups) {
  const BoundList* parameters = parameters_of(binding);
  std::vector<double> ratios;
  bool any = false;
  for (std::size_t tensor = 0; tensor < binding.tensors.size(); ++tensor) {
    const double ratio = groups[binding.group_of_tensor[tensor]].adaptive_clip;
    ratios.push_back(ratio);
    if (!(ratio > 0)) continue;
    any = true;
    if (parameters == nullptr || !parameters->has_tensor[tensor]) {
      throw Error("bind: adaptive_clip needs the parameter of tensor \"" + binding.tensors[tensor] +
                  "\"; give it in Bindings::parameters, or turn adaptive_clip off for its group "
                  "by a group rule");
    }
  }
  return any ? ratios : std::vector<double>{};
}

void AdaptiveClip::plan(std::vector<double> ratios, double least_norm, double norm_type) {
  ratios_ = std::move(ratios);
  least_norm_ = least_norm;
  norm_type_ = norm_type;
  sums_.assign(ratios_.size(), {});
  coefficients_.assign(ratios_.size(), 1.0);
}

std::span<const kernels::TensorSums> AdaptiveClip::summarize(const Reading& gradients,
                                                             const Reading& parameters) noexcept {
  std::fill(sums_.begin(), sums_.end(), kernels::TensorSums{});
  add(gradients, norm_type_, &kernels::TensorSums::gradient, sums_);
  add(parameters, norm_type_, &kernels::TensorSums::parameter, sums_);
  return sums_;
}

void AdaptiveClip::decide(const void* gathered, std::size_t world_size, std::size_t stride,
                          std::size_t groups, double loss_scale) noexcept {
  const double unscale = loss_scale > 0 ? 1.0 / loss_scale : 1.0;
  const auto norm = [this](double sum) { return kernels::norm_of(sum, sum, norm_type_); };
  for (std::size_t tensor = 0; tensor < ratios_.size(); ++tensor) {
    const kernels::TensorSums sums =
        kernels::fold_tensor(gathered, world_size, stride, groups, tensor, std::isinf(norm_type_));
    coefficients_[tensor] = kernels::adaptive_coefficient(
        ratios_[tensor], least_norm_, norm(sums.gradient) * unscale, norm(sums.parameter));
  }
}

}  // namespace gradwarden::guard
