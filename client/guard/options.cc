#include "client/guard/options.h"

#include <cmath>
#include <sstream>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

void require(bool good, const std::string& message) {
  if (!good) throw Error("guard options: " + message);
}

std::string value_of(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

bool zero_or_positive(double value) { return value >= 0 && std::isfinite(value); }

void check_limit(const std::string& name, double value) {
  require(zero_or_positive(value),
          name + " is " + value_of(value) + "; allowed: 0 (off) or a finite number above it");
}

void check_clipping(const GuardOptions& o) {
  check_limit("max_norm", o.max_norm);
  check_limit("value_limit", o.value_limit);
  require(o.norm_type > 0,
          "norm_type is " + value_of(o.norm_type) + "; allowed: a number above 0 or infinity");
  require(o.clip_rule <= ClipRule::kPercentile,
          "clip_rule is " + std::to_string(static_cast<unsigned>(o.clip_rule)) +
              "; allowed: kFixed, kRollingMean, kZScore, kPercentile");
  if (o.clip_rule != ClipRule::kFixed) {
    const bool percentile = o.clip_rule == ClipRule::kPercentile;
    require(o.clip_value > 0 && std::isfinite(o.clip_value) && (!percentile || o.clip_value <= 100),
            "clip_value is " + value_of(o.clip_value) + "; allowed with this clip_rule: above 0" +
                (percentile ? ", at most 100" : ""));
  }
  check_limit("adaptive_clip", o.adaptive_clip);
  require(o.adaptive_clip_least_norm > 0 && std::isfinite(o.adaptive_clip_least_norm),
          "adaptive_clip_least_norm is " + value_of(o.adaptive_clip_least_norm) +
              "; allowed: a finite number above 0");
  for (const GroupRule& rule : o.group_rules) {
    check_limit("adaptive_clip of group rule \"" + rule.pattern + "\"",
                rule.adaptive_clip.value_or(0));
    require(!rule.pattern.empty(), "a group rule has an empty pattern; \"*\" matches all groups");
    check_limit("max_norm of group rule \"" + rule.pattern + "\"", rule.max_norm);
    check_limit("value_limit of group rule \"" + rule.pattern + "\"", rule.value_limit);
  }
}

void check_spike_rules(const GuardOptions& o) {
  check_limit("skip_above", o.skip_above);
  check_limit("skip_above_z", o.skip_above_z);
  check_limit("skip_above_robust_z", o.skip_above_robust_z);
  require(o.skip_above_rolling_mean == 0 ||
              (o.skip_above_rolling_mean > 1 && std::isfinite(o.skip_above_rolling_mean)),
          "skip_above_rolling_mean is " + value_of(o.skip_above_rolling_mean) +
              "; allowed: 0 (off) or a finite number above 1");
  require(o.on_spike <= SpikeAction::kReduceLearningRate,
          "on_spike is " + std::to_string(static_cast<unsigned>(o.on_spike)) +
              "; allowed: kSkip, kReduceLearningRate");
  require(o.least_learning_rate_factor > 0 && o.least_learning_rate_factor <= 1,
          "least_learning_rate_factor is " + value_of(o.least_learning_rate_factor) +
              "; allowed: above 0, at most 1");
}

void check_observations(const GuardOptions& o) {
  require(o.local_every >= 1, "local_every is 0; allowed: 1 or more");
  require(zero_or_positive(o.audit_tolerance), "audit_tolerance is " + value_of(o.audit_tolerance) +
                                                   "; allowed: 0 or a finite number above it");
}

}  // namespace

void check(const GuardOptions& o) {
  check_clipping(o);
  check_spike_rules(o);
  check_observations(o);
  require(o.window >= 1 && o.window <= kernels::kMaxWindow,
          "window is " + std::to_string(o.window) + "; allowed: 1 to " +
              std::to_string(kernels::kMaxWindow));
  require(o.warmup >= 1 && o.warmup <= o.window, "warmup is " + std::to_string(o.warmup) +
                                                     "; allowed: 1 to window (" +
                                                     std::to_string(o.window) + ")");
  require(o.ema_decay > 0 && o.ema_decay < 1,
          "ema_decay is " + value_of(o.ema_decay) + "; allowed: above 0 and below 1");
  require(o.level_shift_after >= 2 && o.level_shift_after <= kernels::kMaxLevelShiftAfter,
          "level_shift_after is " + std::to_string(o.level_shift_after) + "; allowed: 2 to " +
              std::to_string(kernels::kMaxLevelShiftAfter));
  require(o.max_consecutive_skips >= 1, "max_consecutive_skips is 0; allowed: 1 or more");
  require(o.fallback == Fallback::kApplyClipped || o.fallback == Fallback::kRequestStop,
          "fallback is " + std::to_string(static_cast<unsigned>(o.fallback)) +
              "; allowed: kApplyClipped, kRequestStop");
}

kernels::GuardPolicy policy_of(const GuardOptions& o) {
  kernels::GuardPolicy policy;
  policy.max_norm = o.max_norm;
  policy.clip_rule = static_cast<kernels::ClipRule>(o.clip_rule);
  policy.clip_value = o.clip_value;
  policy.skip_above = o.skip_above;
  policy.skip_non_finite = o.skip_non_finite;
  policy.skip_above_rolling_mean = o.skip_above_rolling_mean > 0;
  if (policy.skip_above_rolling_mean) policy.spike.multiple = o.skip_above_rolling_mean;
  policy.spike.robust_z = o.skip_above_robust_z;
  policy.skip_above_z = o.skip_above_z;
  policy.on_spike = static_cast<kernels::SpikeAction>(o.on_spike);
  policy.least_learning_rate_factor = o.least_learning_rate_factor;
  policy.ema.decay = o.ema_decay;
  policy.ema.warmup = o.warmup;
  policy.ema.level_shift_after = o.level_shift_after;
  policy.spike.window = o.window;
  policy.spike.warmup = o.warmup;
  policy.spike.level_shift_after = o.level_shift_after;
  policy.max_consecutive_skips = o.max_consecutive_skips;
  policy.fallback = static_cast<kernels::Fallback>(o.fallback);
  return policy;
}

// What must be equal on all ranks, as a person reads it.
std::string settings_text(const GuardOptions& o) {
  std::ostringstream out;
  out.precision(17);
  out << "{max_norm " << o.max_norm << ", clip_rule " << static_cast<unsigned>(o.clip_rule)
      << ", clip_value " << o.clip_value << ", norm_type " << o.norm_type << ", value_limit "
      << o.value_limit << ", skip_non_finite " << o.skip_non_finite << ", skip_above "
      << o.skip_above << ", skip_above_rolling_mean " << o.skip_above_rolling_mean
      << ", skip_above_z " << o.skip_above_z << ", skip_above_robust_z " << o.skip_above_robust_z
      << ", on_spike " << static_cast<unsigned>(o.on_spike) << ", least_learning_rate_factor "
      << o.least_learning_rate_factor << ", window " << o.window << ", warmup " << o.warmup
      << ", ema_decay " << o.ema_decay << ", level_shift_after " << o.level_shift_after
      << ", max_consecutive_skips " << o.max_consecutive_skips << ", fallback "
      << static_cast<unsigned>(o.fallback) << ", shadow " << o.shadow << ", adaptive_clip "
      << o.adaptive_clip << ", adaptive_clip_least_norm " << o.adaptive_clip_least_norm
      << ", local_every " << o.local_every << ", audit_every " << o.audit_every
      << ", observe_others_every " << o.observe_others_every << ", audit_tolerance "
      << o.audit_tolerance;
  for (const GroupRule& rule : o.group_rules) {
    out << ", group rule " << rule.pattern << " max_norm " << rule.max_norm << " value_limit "
        << rule.value_limit;
    if (rule.adaptive_clip) out << " adaptive_clip " << *rule.adaptive_clip;
  }
  out << "}";
  return out.str();
}

}  // namespace gradwarden::guard
