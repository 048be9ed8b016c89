#include "daemon/detect/non_finite_detector.h"

#include <cmath>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

constexpr std::string_view kElementsSignal = "non_finite_elements";

// Ranks may report ahead of rank 0 by this many tensors; older ones are of steps long judged.
constexpr std::size_t kMaxEarlyOrigins = 64;

// A value seen before the reduction names its birth place and beats one seen after it; among equals
// the first one stays.
bool add_origin(Incident& incident, const NonFiniteOrigin& origin) {
  const bool named = !incident.tensor.empty() || incident.element.has_value();
  if (named && (incident.born_locally || !origin.local)) return false;
  incident.tensor = origin.tensor;
  incident.group = origin.group;
  incident.rank = origin.rank;
  incident.element = origin.element;
  incident.born_locally = origin.local;
  return true;
}

std::string_view signal_of(const Step& step) {
  if (step.non_finite_count != 0) return kElementsSignal;
  return std::isfinite(step.grad_norm.value_or(0)) ? kLossSignal : kGradNormSignal;
}

bool covers(const Incident* incident, std::uint64_t step) {
  return incident != nullptr && incident->start_step <= step && step <= incident->last_step;
}

}  // namespace

NonFiniteDetector::NonFiniteDetector(std::uint32_t quiet_steps)
    : non_finite_(kNonFinite, kElementsSignal, quiet_steps),
      overflow_(kNonFinite, kElementsSignal, quiet_steps) {}

void NonFiniteDetector::observe(const Step& step, std::uint64_t& next_key,
                                std::vector<Finding>& findings) {
  if (!is_non_finite(step)) {
    if (step.overflows != 0) flag_overflows(step, next_key, findings);
    return;
  }
  IncidentTracker& tracker = step.loss_scale_overflow ? overflow_ : non_finite_;
  // A step that was skipped did no harm; one that was applied may have ruined the parameters.
  const Severity severity = step.loss_scale_overflow ? Severity::kInfo
                            : step.applied           ? Severity::kCritical
                                                     : Severity::kWarning;
  Incident& incident = tracker.flag({.step = step.step,
                                     .time_ns = step.time_ns,
                                     .value = static_cast<double>(step.non_finite_count),
                                     .severity = severity,
                                     .signal = signal_of(step)},
                                    next_key);
  if (tracker.at_peak()) incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  for (const NonFiniteOrigin& origin : step.origins) add_origin(incident, origin);
  for (const EarlyOrigin& early : early_) {
    if (early.step != step.step) continue;
    add_origin(incident, {early.tensor, early.group, early.rank, early.element, early.local});
  }
  while (!early_.empty() && early_.front().step <= step.step) early_.pop_front();
  if (step.birth_rank && !incident.born_locally) {
    incident.rank = step.birth_rank;
    incident.born_locally = true;
  }
  tracker.report(findings);
}

// The step itself is finite; the scaler skipped others before it.
void NonFiniteDetector::flag_overflows(const Step& step, std::uint64_t& next_key,
                                       std::vector<Finding>& findings) {
  overflow_.flag({.step = step.step,
                  .time_ns = step.time_ns,
                  .value = static_cast<double>(step.overflows),
                  .signal = kOverflowSignal},
                 next_key);
  overflow_.report(findings);
}

void NonFiniteDetector::quiet(std::vector<Finding>& findings) {
  non_finite_.quiet(findings);
  overflow_.quiet(findings);
}

void NonFiniteDetector::observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                                       std::vector<Finding>& findings) {
  for (IncidentTracker* tracker : {&non_finite_, &overflow_}) {
    if (!covers(tracker->open(), step)) continue;
    if (add_origin(*tracker->open(), origin)) tracker->report(findings);
    return;
  }
  if (early_.size() == kMaxEarlyOrigins) early_.pop_front();
  early_.push_back({step, std::string(origin.tensor), std::string(origin.group), origin.rank,
                    origin.element, origin.local});
}

void NonFiniteDetector::finish(std::vector<Finding>& findings) {
  non_finite_.end(findings);
  overflow_.end(findings);
}

void NonFiniteDetector::append_open(std::vector<Incident>& out) const {
  for (const IncidentTracker* tracker : {&non_finite_, &overflow_}) {
    if (tracker->open() != nullptr) out.push_back(*tracker->open());
  }
}

void NonFiniteDetector::save(StateWriter& out) const {
  non_finite_.save(out);
  overflow_.save(out);
  out.value(static_cast<std::uint32_t>(early_.size()));
  for (const EarlyOrigin& early : early_) {
    out.value(early.step);
    out.text(early.tensor);
    out.text(early.group);
    out.value(early.rank);
    out.value(early.element);
    out.value(static_cast<std::uint8_t>(early.local));
  }
}

bool NonFiniteDetector::restore(StateReader& in) {
  if (!non_finite_.restore(in) || !overflow_.restore(in)) return false;
  early_.clear();
  const auto count = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    EarlyOrigin& early = early_.emplace_back();
    early.step = in.value<std::uint64_t>();
    early.tensor = in.text();
    early.group = in.text();
    early.rank = in.value<std::uint32_t>();
    early.element = in.value<std::uint64_t>();
    early.local = in.boolean();
  }
  return in.ok();
}

}  // namespace gradwarden::detect
