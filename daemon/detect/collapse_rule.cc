#include "daemon/detect/collapse_rule.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::uint64_t kLearnRows = 64;
constexpr std::uint32_t kNewLevelAfter = 200;

}  // namespace

CollapseRule::CollapseRule(const CollapseOptions& options)
    : TrackedRule(kGradientCollapse, kGradNormSignal, 1), options_(options) {}

void CollapseRule::observe(const Scene& scene) {
  const Step& step = scene.step;
  if (!step.grad_norm || is_non_finite(step) || *step.grad_norm < 0) return;
  const bool low = rows_ >= kLearnRows && *step.grad_norm * options_.factor < std::exp(usual_);
  if (low) {
    flag(scene);
    return;
  }
  low_rows_ = 0;
  tracker_.quiet(scene.findings);
  if (*step.grad_norm == 0) return;
  ++rows_;
  const double weight = 1 / static_cast<double>(std::min(rows_, kLearnRows));
  usual_ += weight * (std::log(*step.grad_norm) - usual_);
}

void CollapseRule::flag(const Scene& scene) {
  const Step& step = scene.step;
  if (low_rows_ == 0) {
    start_step_ = step.step;
    start_time_ns_ = step.time_ns;
  }
  if (++low_rows_ < options_.after) return;
  const bool begins = tracker_.open() == nullptr;
  Incident& incident = tracker_.flag({.step = step.step,
                                      .time_ns = step.time_ns,
                                      .value = *step.grad_norm,
                                      .baseline = std::exp(usual_),
                                      .threshold = std::exp(usual_) / options_.factor,
                                      .severity = Severity::kWarning},
                                     scene.next_key);
  if (begins) {
    incident.start_step = start_step_;
    incident.start_time_ns = start_time_ns_;
    incident.flagged_steps = low_rows_;
    tracker_.report(scene.findings);
  }
  if (low_rows_ < kNewLevelAfter) return;
  // It is the normal now.
  tracker_.end(scene.findings);
  rows_ = 0;
  usual_ = 0;
  low_rows_ = 0;
}

void CollapseRule::save(StateWriter& out) const {
  out.value(rows_);
  out.value(usual_);
  out.value(low_rows_);
  out.value(start_step_);
  out.value(start_time_ns_);
  tracker_.save(out);
}

bool CollapseRule::restore(StateReader& in) {
  rows_ = in.value<std::uint64_t>();
  usual_ = in.value<double>();
  low_rows_ = in.value<std::uint32_t>();
  start_step_ = in.value<std::uint64_t>();
  start_time_ns_ = in.value<std::uint64_t>();
  return tracker_.restore(in);
}

}  // namespace gradwarden::detect
