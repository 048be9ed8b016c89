#include "daemon/detect/loss_scale_rule.h"

#include <algorithm>
#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// So many rows without an overflow end the search for a first scale.
constexpr std::uint32_t kSearchEnds = 50;
// Rows without an overflow that end an incident.
constexpr std::uint32_t kQuietRows = 100;
// Below it there is nothing left to scale by.
constexpr double kLeastScale = 1;

}  // namespace

LossScaleRule::LossScaleRule(const LossScaleOptions& options)
    : options_(options),
      burst_(kOverflowBurst, kOverflowSignal, kQuietRows),
      collapse_(kLossScaleCollapse, kLossScaleSignal, kQuietRows) {}

void LossScaleRule::observe(const Scene& scene) {
  judge_overflows(scene);
  if (scene.step.loss_scale && std::isfinite(*scene.step.loss_scale)) judge_scale(scene);
}

void LossScaleRule::judge_overflows(const Scene& scene) {
  const Step& step = scene.step;
  const std::uint64_t overflows =
      std::max<std::uint64_t>(step.overflows, step.loss_scale_overflow ? 1 : 0);
  if (overflows == 0) {
    if (++calm_rows_ == kSearchEnds && searching_) {
      searching_ = false;
      high_ = 0;  // what the search tried is no measure
    }
    burst_.quiet(scene.findings);
    return;
  }
  calm_rows_ = 0;
  if (searching_) return;
  for (std::uint64_t i = 0; i < std::min<std::uint64_t>(overflows, options_.burst); ++i) {
    overflow_steps_.push_back(step.step);
  }
  while (overflow_steps_.size() > options_.burst) overflow_steps_.pop_front();
  const bool dense = overflow_steps_.size() == options_.burst &&
                     overflow_steps_.back() - overflow_steps_.front() <= options_.burst_steps;
  if (!dense && burst_.open() == nullptr) return;
  const bool begins = burst_.open() == nullptr;
  const std::uint64_t stretch = overflow_steps_.back() - overflow_steps_.front() + 1;
  Incident& incident = burst_.flag({.step = step.step,
                                    .time_ns = step.time_ns,
                                    .value = static_cast<double>(overflow_steps_.size()),
                                    .baseline = static_cast<double>(stretch),
                                    .threshold = static_cast<double>(options_.burst_steps),
                                    .severity = Severity::kWarning},
                                   scene.next_key);
  if (!begins) return;
  incident.start_step = overflow_steps_.front();
  incident.flagged_steps = overflow_steps_.size();
  burst_.report(scene.findings);
}

void LossScaleRule::judge_scale(const Scene& scene) {
  const Step& step = scene.step;
  const double scale = *step.loss_scale;
  if (scale >= high_ || ++rows_since_high_ > options_.collapse_rows) {
    high_ = scale;
    rows_since_high_ = 0;
  }
  const bool fell = !searching_ && scale * options_.collapse_factor <= high_;
  const bool nothing_left = scale <= kLeastScale && high_ > kLeastScale;
  if (!fell && !nothing_left) {
    collapse_.quiet(scene.findings);
    return;
  }
  const bool begins = collapse_.open() == nullptr;
  Incident& incident = collapse_.flag({.step = step.step,
                                       .time_ns = step.time_ns,
                                       .value = scale,
                                       .baseline = high_,
                                       .threshold = high_ / options_.collapse_factor,
                                       .severity = Severity::kWarning},
                                      scene.next_key);
  // The lowest is what matters.
  if (scale < incident.value) {
    incident.value = scale;
    incident.peak_step = step.step;
  }
  if (begins) collapse_.report(scene.findings);
}

void LossScaleRule::finish(std::vector<Finding>& findings) {
  burst_.end(findings);
  collapse_.end(findings);
}

void LossScaleRule::append_open(std::vector<Incident>& out) const {
  for (const IncidentTracker* tracker : {&burst_, &collapse_}) {
    if (tracker->open() != nullptr) out.push_back(*tracker->open());
  }
}

void LossScaleRule::save(StateWriter& out) const {
  burst_.save(out);
  collapse_.save(out);
  out.value(static_cast<std::uint8_t>(searching_));
  out.value(calm_rows_);
  out.value(static_cast<std::uint32_t>(overflow_steps_.size()));
  for (const std::uint64_t step : overflow_steps_) out.value(step);
  out.value(high_);
  out.value(rows_since_high_);
}

bool LossScaleRule::restore(StateReader& in) {
  if (!burst_.restore(in) || !collapse_.restore(in)) return false;
  searching_ = in.boolean();
  calm_rows_ = in.value<std::uint32_t>();
  overflow_steps_.clear();
  const auto count = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    overflow_steps_.push_back(in.value<std::uint64_t>());
  }
  high_ = in.value<double>();
  rows_since_high_ = in.value<std::uint32_t>();
  return in.ok();
}

}  // namespace gradwarden::detect
