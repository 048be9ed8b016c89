// From the global statistics of a step to what is done with it: one pure function over plain state.
#ifndef GRADWARDEN_KERNELS_NUMERICS_DECISION_H_
#define GRADWARDEN_KERNELS_NUMERICS_DECISION_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/clip.h"
#include "kernels/numerics/portable.h"
#include "kernels/numerics/spike_rule.h"

namespace gradwarden::kernels {

// The values equal those of gradwarden.v1.Decision and .Reason (proto/gradwarden/v1/report.proto).
enum class Decision : std::uint8_t { kApply = 1, kClip = 2, kReduce = 3, kSkip = 4 };

enum class Reason : std::uint8_t {
  kWithinLimits = 1,
  kMaxNorm = 2,
  kNonFinite = 3,
  kLossScaleOverflow = 4,
  kAbsoluteLimit = 5,
  kRollingMean = 6,
  kSkipLimit = 7,
  kCollectiveFailed = 8,  // set by the guard, not by decide()
};

// What follows when max_consecutive_skips spike skips did not help.
enum class Fallback : std::uint8_t {
  kApplyClipped =
      0,  // take the step, clipped if max_norm is set, until the signal is back within limits
  kRequestStop = 1,  // go on skipping and ask the trainer to stop
};

struct GuardPolicy {
  double max_norm = 0;    // clip by global norm; 0: off
  double skip_above = 0;  // skip above this grad norm; 0: off
  bool skip_non_finite = true;
  bool skip_above_rolling_mean = false;  // skip what `spike` flags
  SpikeRuleOptions spike;
  std::uint32_t max_consecutive_skips = 10;  // 1 or more
  Fallback fallback = Fallback::kApplyClipped;
};

struct GuardState {
  SpikeRuleState spike;
  std::uint32_t consecutive_skips = 0;
  std::uint32_t reserved = 0;
};

struct StepStatistics {
  double norm = 0;  // unscaled global norm of the finite elements; infinite where it left float64
  bool non_finite = false;          // any NaN or Inf among the gradients
  bool dynamic_loss_scale = false;  // a non-finite step is then an overflow, the scaler's business
};

struct StepVerdict {
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
  bool level_shift = false;     // the window restarted at a new level in this step
  bool stop_requested = false;  // the fallback asks the trainer to stop
  double clip_coefficient = 1;
  double rolling_mean = 0;  // before this step; 0 during warm-up
  double threshold =
      0;  // norm above which this step would have been skipped; 0 if no limit applied
};

// No usable update: an element is not finite, or all are and the norm itself left float64, whose
// clip coefficient would be 0 and wipe the gradients.
GRADWARDEN_HD inline bool unusable(const StepStatistics& step) {
  return step.non_finite || !std::isfinite(step.norm);
}

// Judges without the bound on skips: kWithinLimits means "apply or clip".
GRADWARDEN_HD inline Reason skip_reason(const GuardPolicy& policy, const StepStatistics& step,
                                        bool spike) {
  if (unusable(step)) {
    if (!policy.skip_non_finite) return Reason::kWithinLimits;
    return step.dynamic_loss_scale ? Reason::kLossScaleOverflow : Reason::kNonFinite;
  }
  if (policy.skip_above > 0 && step.norm > policy.skip_above) return Reason::kAbsoluteLimit;
  if (spike && policy.skip_above_rolling_mean) return Reason::kRollingMean;
  return Reason::kWithinLimits;
}

GRADWARDEN_HD inline double skip_threshold(const GuardPolicy& policy, double rolling_threshold) {
  double limit = policy.skip_above_rolling_mean ? rolling_threshold : 0;
  if (policy.skip_above > 0 && (limit == 0 || policy.skip_above < limit)) limit = policy.skip_above;
  return limit;
}

// Decides one step and updates the state. Deterministic: equal state and statistics give equal bits
// on every rank.
GRADWARDEN_HD inline StepVerdict decide(const GuardPolicy& policy, GuardState& state,
                                        const StepStatistics& step) {
  StepVerdict verdict;
  const double judged = unusable(step) ? static_cast<double>(NAN) : step.norm;
  const SpikeJudgement spike = judge(state.spike, policy.spike, judged);
  verdict.rolling_mean = spike.mean;
  verdict.threshold = skip_threshold(policy, spike.threshold);
  verdict.level_shift = spike.verdict == SpikeVerdict::kLevelShift;
  verdict.reason = skip_reason(policy, step, spike.verdict == SpikeVerdict::kSpike);

  if (verdict.reason ==
      Reason::kLossScaleOverflow) {  // neither counts towards the bound nor resets it
    verdict.decision = Decision::kSkip;
    return verdict;
  }
  if (verdict.reason != Reason::kWithinLimits) {
    const bool exhausted = state.consecutive_skips >= policy.max_consecutive_skips;
    if (!exhausted) ++state.consecutive_skips;
    // A non-finite update is never applied, whatever the fallback: there is nothing in it worth
    // having.
    const bool skip = !exhausted || unusable(step) || policy.fallback == Fallback::kRequestStop;
    if (exhausted) {
      verdict.reason = Reason::kSkipLimit;
      verdict.stop_requested = skip;
    }
    if (skip) {
      verdict.decision = Decision::kSkip;
      return verdict;
    }
  } else {
    state.consecutive_skips = 0;
  }
  if (unusable(step))
    return verdict;  // the policy lets non-finite steps through: leave them as they are
  verdict.clip_coefficient = clip_coefficient(step.norm, policy.max_norm);
  if (verdict.clip_coefficient < 1) {
    verdict.decision = Decision::kClip;
    if (verdict.reason == Reason::kWithinLimits) verdict.reason = Reason::kMaxNorm;
  }
  return verdict;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_DECISION_H_
