// From the global statistics of a step to what is done with it: one pure function over plain state.
#ifndef GRADWARDEN_KERNELS_NUMERICS_DECISION_H_
#define GRADWARDEN_KERNELS_NUMERICS_DECISION_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/clip.h"
#include "kernels/numerics/ema_rule.h"
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
  kZScore = 9,
  kRobustZScore = 10,
  kGroupMaxNorm = 11,  // set by the guard: a group, not the whole, was above its threshold
  kAdaptiveClip = 12,  // set by the guard: a tensor's norm was too large for its parameter's
};

// Which rules a step broke, whether or not they act: 1 << Reason.
using RuleSet = std::uint32_t;
GRADWARDEN_HD constexpr RuleSet rule_bit(Reason reason) {
  return RuleSet{1} << static_cast<unsigned>(reason);
}

// Where the clip threshold comes from.
enum class ClipRule : std::uint8_t {
  kFixed = 0,        // max_norm
  kRollingMean = 1,  // clip_value x the mean of the window
  kZScore = 2,       // average + clip_value x deviation, of the exponential average (ZClip's rule)
  kPercentile = 3,   // the clip_value-th percentile of the window (AutoClip's rule)
};

// What follows when a norm is above a limit; a non-finite step is always skipped.
enum class SpikeAction : std::uint8_t {
  kSkip = 0,
  kReduceLearningRate = 1,  // apply the step with a smaller learning rate
};

// What follows when max_consecutive_skips spike skips did not help.
enum class Fallback : std::uint8_t {
  kApplyClipped =
      0,  // take the step, clipped if max_norm is set, until the signal is back within limits
  kRequestStop = 1,  // go on skipping and ask the trainer to stop
};

struct GuardPolicy {
  // Clip by global norm; 0: off. Under another rule than kFixed it is an upper bound of the
  // threshold, and the threshold during warm-up.
  double max_norm = 0;
  ClipRule clip_rule = ClipRule::kFixed;
  double clip_value = 0;
  double skip_above = 0;  // act above this grad norm; 0: off
  bool skip_non_finite = true;
  bool skip_above_rolling_mean = false;  // act on what spike.multiple flags
  double skip_above_z = 0;  // act above this z-score of the exponential average; 0: off
  SpikeAction on_spike = SpikeAction::kSkip;
  double least_learning_rate_factor = 0.1;  // of kReduceLearningRate, above 0
  SpikeRuleOptions spike;                   // robust_z > 0: act on what it flags
  EmaOptions ema;
  std::uint32_t max_consecutive_skips = 10;  // 1 or more
  Fallback fallback = Fallback::kApplyClipped;
};

struct GuardState {
  SpikeRuleState spike;
  EmaState ema;
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
  bool level_shift = false;     // a memory restarted at a new level in this step
  bool stop_requested = false;  // the fallback asks the trainer to stop
  RuleSet broken_rules = 0;     // all of them, not only the one that decided
  double clip_coefficient = 1;
  double clip_threshold = 0;        // that applied to this step; 0: none
  double learning_rate_factor = 1;  // below 1 under kReduce
  double rolling_mean = 0;          // before this step; 0 during warm-up
  double threshold =
      0;  // norm above which this step would have been skipped or reduced; 0 if no limit applied
};

// No usable update: an element is not finite, or all are and the norm itself left float64, whose
// clip coefficient would be 0 and wipe the gradients.
GRADWARDEN_HD inline bool unusable(const StepStatistics& step) {
  return step.non_finite || !std::isfinite(step.norm);
}

// The limits of a step, before it enters any memory; 0: none.
struct StepLimits {
  SpikeThresholds window;
  double z_score = 0;
  double clip = 0;
};

// The z-score above which a value stays out of the exponential average; 0: the average is not used.
GRADWARDEN_HD inline double ema_entry_z(const GuardPolicy& policy) {
  const double clip_z = policy.clip_rule == ClipRule::kZScore ? policy.clip_value : 0;
  return lower_limit(policy.skip_above_z, clip_z);
}

GRADWARDEN_HD inline double clip_limit(const GuardPolicy& policy, GuardState& state,
                                       const SpikeThresholds& window) {
  if (policy.clip_rule == ClipRule::kFixed) return policy.max_norm;
  double limit = 0;
  if (policy.clip_rule == ClipRule::kZScore) {
    limit = ema_threshold(state.ema, policy.ema, policy.clip_value);
  } else if (window_judges(state.spike, policy.spike)) {
    limit = policy.clip_rule == ClipRule::kRollingMean
                ? policy.clip_value * window.mean
                : window_percentile(state.spike, policy.clip_value);
  }
  return lower_limit(policy.max_norm, limit);
}

GRADWARDEN_HD inline StepLimits limits_of(const GuardPolicy& policy, GuardState& state) {
  StepLimits limits;
  limits.window = spike_thresholds(state.spike, policy.spike);
  if (policy.skip_above_z > 0) {
    limits.z_score = ema_threshold(state.ema, policy.ema, policy.skip_above_z);
  }
  limits.clip = clip_limit(policy, state, limits.window);
  return limits;
}

// All rules that the step breaks, of those that judge.
GRADWARDEN_HD inline RuleSet broken_rules(const GuardPolicy& policy, const GuardState& state,
                                          const StepLimits& limits, const StepStatistics& step) {
  if (unusable(step)) {
    return rule_bit(step.dynamic_loss_scale ? Reason::kLossScaleOverflow : Reason::kNonFinite);
  }
  RuleSet rules = 0;
  if (policy.skip_above > 0 && step.norm > policy.skip_above) {
    rules |= rule_bit(Reason::kAbsoluteLimit);
  }
  if (window_judges(state.spike, policy.spike)) {
    if (policy.spike.multiple > 0 && step.norm > limits.window.rolling) {
      rules |= rule_bit(Reason::kRollingMean);
    }
    if (limits.window.robust > 0 && step.norm > limits.window.robust) {
      rules |= rule_bit(Reason::kRobustZScore);
    }
  }
  if (limits.z_score > 0 && step.norm > limits.z_score) rules |= rule_bit(Reason::kZScore);
  if (limits.clip > 0 && step.norm > limits.clip) rules |= rule_bit(Reason::kMaxNorm);
  return rules;
}

// Non-finite steps enter nothing. Returns the rules whose memory started again in this step, which
// therefore do not act on it.
GRADWARDEN_HD inline RuleSet remember(const GuardPolicy& policy, GuardState& state,
                                      const StepStatistics& step, RuleSet broken) {
  if (unusable(step)) return 0;
  constexpr RuleSet kWindowRules = rule_bit(Reason::kRollingMean) | rule_bit(Reason::kRobustZScore);
  RuleSet restarted = 0;
  const double z = ema_entry_z(policy);
  const double limit = z > 0 ? ema_threshold(state.ema, policy.ema, z) : 0;
  // A step that another rule skips is not an accepted one, whatever the memory's own rules say;
  // also while those do not judge yet.
  const bool above = (broken & rule_bit(Reason::kAbsoluteLimit)) != 0;
  const bool ema_outlier = above || (limit > 0 && step.norm > limit);
  const bool spike = above || (broken & (kWindowRules | rule_bit(Reason::kZScore))) != 0;
  if (enter_window(state.spike, policy.spike, step.norm, spike)) restarted |= kWindowRules;
  if (z > 0 && enter_ema(state.ema, policy.ema, step.norm, ema_outlier)) {
    restarted |= rule_bit(Reason::kZScore);
  }
  return restarted;
}

// The first of the broken rules that acts; kWithinLimits: none, which means "apply or clip".
GRADWARDEN_HD inline Reason acting_rule(const GuardPolicy& policy, RuleSet rules) {
  const auto broken = [rules](Reason reason) { return (rules & rule_bit(reason)) != 0; };
  if (broken(Reason::kLossScaleOverflow) && policy.skip_non_finite)
    return Reason::kLossScaleOverflow;
  if (broken(Reason::kNonFinite) && policy.skip_non_finite) return Reason::kNonFinite;
  if (broken(Reason::kAbsoluteLimit)) return Reason::kAbsoluteLimit;
  if (broken(Reason::kRollingMean) && policy.skip_above_rolling_mean) return Reason::kRollingMean;
  if (broken(Reason::kZScore)) return Reason::kZScore;
  if (broken(Reason::kRobustZScore)) return Reason::kRobustZScore;
  return Reason::kWithinLimits;
}

// The lowest norm at which a rule would have acted; 0: none.
GRADWARDEN_HD inline double acting_threshold(const GuardPolicy& policy, const StepLimits& limits) {
  double lowest = lower_limit(limits.z_score, limits.window.robust);
  if (policy.skip_above_rolling_mean) lowest = lower_limit(lowest, limits.window.rolling);
  return lower_limit(lowest, policy.skip_above);
}

// Applies the bound on consecutive skips. Returns false if the step is to be skipped.
GRADWARDEN_HD inline bool go_on(const GuardPolicy& policy, GuardState& state,
                                const StepStatistics& step, StepVerdict& verdict) {
  if (verdict.reason == Reason::kWithinLimits) {
    state.consecutive_skips = 0;
    return true;
  }
  // An overflow neither counts towards the bound nor resets it.
  if (verdict.reason == Reason::kLossScaleOverflow) return false;
  if (!unusable(step) && policy.on_spike == SpikeAction::kReduceLearningRate) {
    state.consecutive_skips = 0;
    const double factor = verdict.threshold / step.norm;
    const double least = policy.least_learning_rate_factor;
    verdict.decision = Decision::kReduce;
    verdict.learning_rate_factor = factor > least ? factor : least;
    return true;
  }
  const bool exhausted = state.consecutive_skips >= policy.max_consecutive_skips;
  if (!exhausted) ++state.consecutive_skips;
  // A non-finite update is never applied, whatever the fallback: there is nothing in it worth
  // having.
  const bool skip = !exhausted || unusable(step) || policy.fallback == Fallback::kRequestStop;
  if (exhausted) {
    verdict.reason = Reason::kSkipLimit;
    verdict.stop_requested = skip;
  }
  return !skip;
}

// Decides one step and updates the state. Deterministic: equal state and statistics give equal bits
// on every rank.
GRADWARDEN_HD inline StepVerdict decide(const GuardPolicy& policy, GuardState& state,
                                        const StepStatistics& step) {
  StepVerdict verdict;
  const StepLimits limits = limits_of(policy, state);
  verdict.rolling_mean = limits.window.mean;
  verdict.threshold = acting_threshold(policy, limits);
  verdict.broken_rules = broken_rules(policy, state, limits, step);
  const RuleSet restarted = remember(policy, state, step, verdict.broken_rules);
  verdict.level_shift = restarted != 0;
  verdict.reason = acting_rule(policy, verdict.broken_rules & ~restarted);
  if (!go_on(policy, state, step, verdict)) {
    verdict.decision = Decision::kSkip;
    return verdict;
  }
  if (unusable(step))
    return verdict;  // the policy lets non-finite steps through: leave them as they are
  verdict.clip_threshold = limits.clip;
  verdict.clip_coefficient = clip_coefficient(step.norm, limits.clip);
  if (verdict.clip_coefficient < 1) {
    if (verdict.decision == Decision::kApply) verdict.decision = Decision::kClip;
    if (verdict.reason == Reason::kWithinLimits) verdict.reason = Reason::kMaxNorm;
  }
  return verdict;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_DECISION_H_
