// The rules over a window of the last accepted values: a value is a spike when it lies above a
// multiple of their mean (the rolling-mean rule), or when its logarithm lies more than z robust
// deviations above their median (the robust rule).
//
// Used by the guard (to skip) and by the daemon's detector (to flag). Window hygiene is what their
// peers lack:
//   - non-finite values and spikes never enter the window, so one NaN cannot disable the rule and
//   one spike cannot hide the next;
//   - when `level_shift_after` spikes in a row form a stable level, the window starts again from
//   them and the shift is reported once, so the rule cannot lock in on a level that is gone.
// The state is plain data: it can live in device memory and be saved byte for byte.
#ifndef GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_
#define GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/level.h"
#include "kernels/numerics/order_statistics.h"
#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

inline constexpr std::uint32_t kMaxWindow = 1024;

struct SpikeRuleOptions {
  double multiple = 3.0;                 // > 1; 0: the rolling-mean rule is off
  std::uint32_t window = 100;            // 1 to kMaxWindow accepted values
  std::uint32_t warmup = 20;             // 1 to window: accepted values before the rules judge
  std::uint32_t level_shift_after = 20;  // 2 to kMaxLevelShiftAfter consecutive spikes
  double robust_z = 0;                   // > 0; 0: the robust rule is off
};

struct SpikeRuleState {
  std::uint32_t count = 0;  // values in `window`
  std::uint32_t next = 0;   // slot of `window` that the next accepted value takes
  double window[kMaxWindow] = {};
  PendingLevel pending;
  double scratch[kMaxWindow] = {};  // no state: room to find medians in
};

enum class SpikeVerdict : std::uint8_t {
  kWarmup,      // accepted unjudged
  kAccepted,    // within the limits
  kSpike,       // above a limit; not entered
  kLevelShift,  // above a limit, and the window now holds the new level
  kNonFinite,   // not judged; not entered
};

// The limits before a value enters; 0 where a rule is off or still warming up.
struct SpikeThresholds {
  double mean = 0;     // of the window; 0 during warm-up
  double rolling = 0;  // multiple * mean
  double robust = 0;
};

struct SpikeJudgement {
  SpikeVerdict verdict = SpikeVerdict::kWarmup;
  double mean = 0;       // of the window before this value; 0 during warm-up
  double threshold = 0;  // the lower of the limits; 0 during warm-up
};

// Sums in slot order, not in age order: the same slots give the same bits on host and device.
GRADWARDEN_HD inline double window_mean(const SpikeRuleState& state) {
  double sum = 0;
  for (std::uint32_t i = 0; i < state.count; ++i) sum += state.window[i];
  return state.count == 0 ? 0 : sum / state.count;
}

GRADWARDEN_HD inline void copy_window(SpikeRuleState& state) {
  for (std::uint32_t i = 0; i < state.count; ++i) state.scratch[i] = state.window[i];
}

// Of the values in the window, which has one at least.
GRADWARDEN_HD inline double window_percentile(SpikeRuleState& state, double percent) {
  copy_window(state);
  return percentile_of(state.scratch, state.count, percent);
}

// Logarithms below this deviation are taken as noise, so that a very steady run is not flagged for
// trifles: 5 % of the median.
inline constexpr double kMinLogDeviation = 0.05;
// Makes the median absolute deviation of normal values their standard deviation.
inline constexpr double kMadToDeviation = 1.4826;

// median * exp(z * deviation), the deviation being the scaled median absolute deviation of the
// logarithms. 0 where half of the window is 0. |log v - log m| grows with max(v / m, m / v), so one
// logarithm is enough.
GRADWARDEN_HD inline double robust_threshold(SpikeRuleState& state, double z) {
  copy_window(state);
  const double median = median_of(state.scratch, state.count);
  if (!(median > 0)) return 0;
  for (std::uint32_t i = 0; i < state.count; ++i) {
    const double value = state.window[i];
    const double ratio = value > median ? value / median : median / value;  // infinite for a zero
    state.scratch[i] = ratio;
  }
  const double ratio = median_of(state.scratch, state.count);
  const double deviation = kMadToDeviation * log(ratio);
  return median * exp(z * (deviation > kMinLogDeviation ? deviation : kMinLogDeviation));
}

GRADWARDEN_HD inline bool window_judges(const SpikeRuleState& state,
                                        const SpikeRuleOptions& options) {
  return state.count >= options.warmup;
}

GRADWARDEN_HD inline SpikeThresholds spike_thresholds(SpikeRuleState& state,
                                                      const SpikeRuleOptions& options) {
  SpikeThresholds limits;
  if (!window_judges(state, options)) return limits;
  limits.mean = window_mean(state);
  if (options.multiple > 0) limits.rolling = options.multiple * limits.mean;
  if (options.robust_z > 0) limits.robust = robust_threshold(state, options.robust_z);
  return limits;
}

// The lower of two limits of which 0 means none.
GRADWARDEN_HD inline double lower_limit(double a, double b) {
  if (a == 0) return b;
  return b == 0 || a < b ? a : b;
}

GRADWARDEN_HD inline void push_accepted(SpikeRuleState& state, const SpikeRuleOptions& options,
                                        double value) {
  state.window[state.next] = value;
  state.next = state.next + 1 >= options.window ? 0 : state.next + 1;
  if (state.count < options.window) ++state.count;
}

GRADWARDEN_HD inline void restart_from_pending(SpikeRuleState& state,
                                               const SpikeRuleOptions& options) {
  state.count = 0;
  state.next = 0;
  const std::uint32_t length = options.level_shift_after;
  for (std::uint32_t i = 0; i < length; ++i) {
    push_accepted(state, options, pending_value(state.pending, length, i));
  }
  state.pending.flagged = 0;
}

// Takes a finite value of which it is known whether it is a spike. True: a level shift, and the
// window has started again.
GRADWARDEN_HD inline bool enter_window(SpikeRuleState& state, const SpikeRuleOptions& options,
                                       double value, bool spike) {
  if (!spike) {
    push_accepted(state, options, value);
    state.pending.flagged = 0;
    return false;
  }
  const double multiple = options.multiple > 0 ? options.multiple : 3.0;
  if (!add_outlier(state.pending, options.level_shift_after, multiple, value)) return false;
  restart_from_pending(state, options);
  return true;
}

// Judges one value and updates the state. Norms are >= 0; a negative value is treated like any
// other number.
GRADWARDEN_HD inline SpikeJudgement judge(SpikeRuleState& state, const SpikeRuleOptions& options,
                                          double value) {
  SpikeJudgement result;
  const SpikeThresholds limits = spike_thresholds(state, options);
  result.mean = limits.mean;
  result.threshold = lower_limit(limits.rolling, limits.robust);
  if (!std::isfinite(value)) {
    result.verdict = SpikeVerdict::kNonFinite;
    return result;
  }
  const bool judging = window_judges(state, options);
  const bool spike = judging && ((options.multiple > 0 && value > limits.rolling) ||
                                 (limits.robust > 0 && value > limits.robust));
  const bool shift = enter_window(state, options, value, spike);
  if (!spike)
    result.verdict = judging ? SpikeVerdict::kAccepted : SpikeVerdict::kWarmup;
  else
    result.verdict = shift ? SpikeVerdict::kLevelShift : SpikeVerdict::kSpike;
  return result;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_
