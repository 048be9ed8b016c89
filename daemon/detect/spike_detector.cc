#include "daemon/detect/spike_detector.h"

#include <limits>
#include <string>
#include <utility>

#include "daemon/detect/kinds.h"
#include "daemon/detect/rule.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// A group rose so much more than the others, in its own noise, that the step is about it.
constexpr double kGroupSigmas = 4;
constexpr double kGroupFactor = 0.6931471805599453;  // ln 2

// The flag as the grad norm tells it.
void describe_norm(const Step& step, const SignalScore& score,
                   const kernels::SpikeJudgement& rolling, bool by_rolling, Flag& flag) {
  flag.kind = kGradSpike;
  flag.signal = kGradNormSignal;
  flag.rule = by_rolling ? kRollingMeanRule : kCalibratedRule;
  flag.value = step.grad_norm.value_or(0);
  flag.baseline = by_rolling ? rolling.mean : score.baseline;
  flag.threshold = by_rolling ? rolling.threshold : score.limit;
}

void describe_loss(const Step& step, const SignalScore& score, Flag& flag) {
  flag.kind = kLossSpike;
  flag.signal = kLossSignal;
  flag.rule = kCalibratedRule;
  flag.value = step.loss.value_or(0);
  flag.baseline = score.baseline;
  flag.threshold = score.limit;
}

// The signal that the incident is not named by rose in this step.
void join(Incident& incident, std::string_view signal, const Step& step, double value,
          double baseline) {
  if (!incident.joined) {
    incident.joined = {std::string(signal), step.step, step.step, value, baseline};
  } else if (value > incident.joined->value) {
    incident.joined->peak_step = step.step;
    incident.joined->value = value;
  }
}

}  // namespace

SpikeDetector::SpikeDetector(const kernels::SpikeRuleOptions& options, std::uint32_t quiet_steps)
    : options_(options), spikes_(kGradSpike, kGradNormSignal, quiet_steps) {}

// True for a spike. A step without a grad norm leaves the window as it is.
bool SpikeDetector::judge_rolling(const Step& step) {
  last_.verdict = kernels::SpikeVerdict::kAccepted;
  if (!step.grad_norm) return false;
  const double judged =
      step.non_finite_count != 0 ? std::numeric_limits<double>::quiet_NaN() : *step.grad_norm;
  last_ = kernels::judge(state_, options_, judged);
  return last_.verdict == kernels::SpikeVerdict::kSpike ||
         last_.verdict == kernels::SpikeVerdict::kLevelShift;
}

// What only the rolling-mean rule flags is information: it does not prolong an incident that is
// more, or a run that became wild would have one incident for ever. True while that one goes on.
bool SpikeDetector::calms_down(std::vector<Finding>& findings) {
  if (spikes_.open() == nullptr || spikes_.open()->severity == Severity::kInfo) return false;
  spikes_.quiet(findings);
  return spikes_.open() != nullptr;
}

bool SpikeDetector::observe(const Step& step, const GroupVerdict& group, std::uint64_t& next_key,
                            std::vector<Finding>& findings) {
  const bool rolling = judge_rolling(step);
  const CalibratedVerdict verdict = calibrated_.observe(step);
  if (verdict.unusual || (rolling && !calms_down(findings))) {
    flag(step, verdict, group, rolling, next_key, findings);
  } else if (!rolling && !is_non_finite(step)) {
    spikes_.quiet(findings);
  }
  if (last_.verdict == kernels::SpikeVerdict::kLevelShift) {
    report_level_shift(step, next_key, findings);
  }
  if (verdict.loss_moved) {
    report_moved(step, kLossSignal, *step.loss, verdict.loss, next_key, findings);
  }
  if (verdict.grad_norm_moved && last_.verdict != kernels::SpikeVerdict::kLevelShift) {
    report_moved(step, kGradNormSignal, *step.grad_norm, verdict.grad_norm, next_key, findings);
  }
  return !rolling && !verdict.unusual && !is_non_finite(step);
}

void SpikeDetector::flag(const Step& step, const CalibratedVerdict& verdict,
                         const GroupVerdict& group, bool rolling, std::uint64_t& next_key,
                         std::vector<Finding>& findings) {
  const bool norm_rose = rolling || verdict.grad_norm_rose;
  const Incident* const open = spikes_.open();
  const bool by_norm = open != nullptr ? open->kind == kGradSpike : norm_rose;
  Flag flag{.step = step.step, .time_ns = step.time_ns};
  if (by_norm) {
    describe_norm(step, verdict.grad_norm, last_, rolling, flag);
  } else {
    describe_loss(step, verdict.loss, flag);
  }
  // The loss doubled after, or while, the gradients rose.
  const bool follows = open != nullptr && (by_norm || open->joined.has_value());
  flag.severity = verdict.loss_doubled && (norm_rose || follows) ? Severity::kCritical
                  : verdict.unusual                              ? Severity::kWarning
                                                                 : Severity::kInfo;
  Incident& incident = spikes_.flag(flag, next_key);
  if (spikes_.at_peak()) incident.batch_ids.assign(step.batch_ids.begin(), step.batch_ids.end());
  if (open == nullptr && group.stands_out(kGroupSigmas, kGroupFactor) &&
      group.group < step.group_names.size()) {
    incident.group = step.group_names[group.group];
  }
  if (by_norm && verdict.loss_rose) {
    join(incident, kLossSignal, step, *step.loss, verdict.loss.baseline);
  } else if (!by_norm && norm_rose) {
    const double baseline = verdict.grad_norm.judged ? verdict.grad_norm.baseline : last_.mean;
    join(incident, kGradNormSignal, step, *step.grad_norm, baseline);
  }
  spikes_.report(findings);
}

// The spikes turn out to be a new level: their incident ends, and the shift is an event of its own.
void SpikeDetector::report_level_shift(const Step& step, std::uint64_t& next_key,
                                       std::vector<Finding>& findings) {
  Incident shift = *spikes_.open();
  spikes_.end(findings);
  calibrated_.begin_grad_norm_level();
  shift.kind = kLevelShift;
  shift.severity = Severity::kInfo;
  shift.signal = kGradNormSignal;
  shift.rule = kRollingMeanRule;
  shift.value = kernels::window_mean(state_);
  shift.baseline = last_.mean;
  shift.threshold = last_.threshold;
  shift.peak_step = step.step;
  shift.batch_ids.clear();
  shift.joined.reset();
  append_instant(std::move(shift), next_key, findings);
}

// The incident that the signal is part of goes on for as long as anything is unusual.
void SpikeDetector::report_moved(const Step& step, std::string_view signal, double value,
                                 const SignalScore& score, std::uint64_t& next_key,
                                 std::vector<Finding>& findings) {
  Incident shift;
  shift.kind = kLevelShift;
  shift.signal = signal;
  shift.rule = kCalibratedRule;
  shift.start_step = spikes_.open() != nullptr ? spikes_.open()->start_step : step.step;
  shift.start_time_ns = spikes_.open() != nullptr ? spikes_.open()->start_time_ns : step.time_ns;
  shift.peak_step = shift.last_step = step.step;
  shift.end_time_ns = step.time_ns;
  shift.value = value;
  shift.baseline = score.baseline;
  shift.threshold = score.limit;
  shift.flagged_steps = 1;
  append_instant(std::move(shift), next_key, findings);
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
  calibrated_.save(out);
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
  if (!spikes_.restore(in)) return false;
  return in.version() < 3 || calibrated_.restore(in);
}

}  // namespace gradwarden::detect
