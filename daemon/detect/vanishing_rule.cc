#include "daemon/detect/vanishing_rule.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr double kGrows = 2;  // times what it was when the stretch began
constexpr double kLossFalls = 0.99;
constexpr double kLossAverage = 0.1;  // weight of the newest

}  // namespace

VanishingRule::VanishingRule(const VanishingOptions& options)
    : TrackedRule(kVanishing, kGradNormSignal, 1), options_(options) {}

void VanishingRule::begin_stretch(const Step& step) {
  rows_ = 0;
  start_step_ = step.step;
  start_time_ns_ = step.time_ns;
  first_norm_ = *step.grad_norm;
  first_loss_ = loss_;
}

void VanishingRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (step.loss && std::isfinite(*step.loss)) {
    loss_ = loss_ == 0 ? *step.loss : loss_ + kLossAverage * (*step.loss - loss_);
  }
  if (!step.grad_norm || is_non_finite(step)) return;
  if (*step.grad_norm >= options_.below) {
    rows_ = 0;
    tracker_.quiet(scene.findings);
    return;
  }
  if (rows_ == 0 || *step.grad_norm > kGrows * first_norm_) begin_stretch(step);
  ++rows_;
  if (rows_ < options_.after && tracker_.open() == nullptr) return;
  // Asked again for each stretch of rows: that it learned before says nothing for ever.
  const bool asked = rows_ % std::max(1U, options_.after) == 0;
  const bool learns = !asked || (first_loss_ > 0 && loss_ < kLossFalls * first_loss_);
  if (asked) first_loss_ = loss_;
  const bool begins = tracker_.open() == nullptr;
  const Severity before = begins ? Severity::kInfo : tracker_.open()->severity;
  Incident& incident = tracker_.flag({.step = step.step,
                                      .time_ns = step.time_ns,
                                      .value = *step.grad_norm,
                                      .baseline = first_norm_,
                                      .threshold = options_.below,
                                      .severity = learns ? Severity::kInfo : Severity::kWarning},
                                     scene.next_key);
  if (!begins) {
    if (incident.severity > before) tracker_.report(scene.findings);
    return;
  }
  incident.start_step = start_step_;
  incident.start_time_ns = start_time_ns_;
  incident.flagged_steps = rows_;
  tracker_.report(scene.findings);
}

void VanishingRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(start_step_);
  out.value(start_time_ns_);
  out.value(first_norm_);
  out.value(first_loss_);
  out.value(loss_);
  tracker_.save(out);
}

bool VanishingRule::restore(StateReader& in) {
  rows_ = in.value<std::uint32_t>();
  start_step_ = in.value<std::uint64_t>();
  start_time_ns_ = in.value<std::uint64_t>();
  first_norm_ = in.value<double>();
  first_loss_ = in.value<double>();
  loss_ = in.value<double>();
  return tracker_.restore(in);
}

}  // namespace gradwarden::detect
