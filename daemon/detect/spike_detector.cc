#include "daemon/detect/spike_detector.h"

#include <limits>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {

SpikeDetector::SpikeDetector(const kernels::SpikeRuleOptions& options, std::uint32_t quiet_steps)
    : options_(options), spikes_(kGradSpike, "grad_norm", quiet_steps) {}

bool SpikeDetector::observe(const Step& step, std::uint64_t& next_key,
                            std::vector<Finding>& findings) {
  const double judged =
      step.non_finite_count != 0 ? std::numeric_limits<double>::quiet_NaN() : step.grad_norm;
  last_ = kernels::judge(state_, options_, judged);
  switch (last_.verdict) {
    case kernels::SpikeVerdict::kWarmup:
    case kernels::SpikeVerdict::kAccepted:
      spikes_.quiet(findings);
      return true;
    case kernels::SpikeVerdict::kNonFinite:
      return false;
    case kernels::SpikeVerdict::kSpike:
      flag_spike(step, next_key, findings);
      return false;
    case kernels::SpikeVerdict::kLevelShift:
      flag_spike(step, next_key, findings);
      report_level_shift(step, next_key, findings);
      return false;
  }
  return false;
}

void SpikeDetector::flag_spike(const Step& step, std::uint64_t& next_key,
                               std::vector<Finding>& findings) {
  Incident& incident = spikes_.flag({.step = step.step,
                                     .time_ns = step.time_ns,
                                     .value = step.grad_norm,
                                     .baseline = last_.mean,
                                     .threshold = last_.threshold,
                                     .severity = Severity::kWarning},
                                    next_key);
  if (spikes_.at_peak()) incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  spikes_.report(findings);
}

// The spikes turn out to be a new level: their incident ends, and the shift is an event of its own
// that begins and ends at once.
void SpikeDetector::report_level_shift(const Step& step, std::uint64_t& next_key,
                                       std::vector<Finding>& findings) {
  Incident shift = *spikes_.open();
  spikes_.end(findings);
  shift.key = next_key++;
  shift.revision = 1;
  shift.kind = kLevelShift;
  shift.severity = Severity::kInfo;
  shift.value = kernels::window_mean(state_);
  shift.peak_step = step.step;
  shift.batch_ids.clear();
  findings.push_back({Change::kBegin, shift});
  shift.ended = true;
  shift.revision = 2;
  findings.push_back({Change::kEnd, shift});
}

void SpikeDetector::save(StateWriter& out) const {
  out.value(options_.multiple);
  out.value(options_.window);
  out.value(options_.warmup);
  out.value(options_.level_shift_after);
  out.value(state_.count);
  out.value(state_.next);
  out.value(state_.pending.flagged);
  out.values(state_.window, options_.window);
  out.values(state_.pending.values, options_.level_shift_after);
  out.value(static_cast<std::uint8_t>(last_.verdict));
  out.value(last_.mean);
  out.value(last_.threshold);
  spikes_.save(out);
}

bool SpikeDetector::restore(StateReader& in) {
  const bool same = in.value<double>() == options_.multiple &&
                    in.value<std::uint32_t>() == options_.window &&
                    in.value<std::uint32_t>() == options_.warmup &&
                    in.value<std::uint32_t>() == options_.level_shift_after;
  if (!same) return false;
  state_.count = in.value<std::uint32_t>();
  state_.next = in.value<std::uint32_t>();
  state_.pending.flagged = in.value<std::uint32_t>();
  if (state_.count > options_.window || state_.next >= options_.window) return false;
  in.values(state_.window, options_.window);
  in.values(state_.pending.values, options_.level_shift_after);
  last_.verdict = static_cast<kernels::SpikeVerdict>(in.value<std::uint8_t>());
  last_.mean = in.value<double>();
  last_.threshold = in.value<double>();
  return spikes_.restore(in);
}

}  // namespace gradwarden::detect
