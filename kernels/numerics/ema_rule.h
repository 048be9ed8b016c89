// The z-score rule over an exponential moving average: a value is an outlier when it lies more than
// z standard deviations above the average.
//
// The rule of ZClip (arXiv 2504.02507), with what it lacks repaired: the value is scored before it
// enters, so the score is not bounded by the window; outliers and non-finite values do not enter,
// so one NaN cannot blind the rule and clipped values cannot make the variance collapse; and a
// lasting shift becomes the new level instead of being clipped for ever.
#ifndef GRADWARDEN_KERNELS_NUMERICS_EMA_RULE_H_
#define GRADWARDEN_KERNELS_NUMERICS_EMA_RULE_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/level.h"
#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

struct EmaOptions {
  double decay = 0.97;                   // weight of the past, above 0 and below 1
  std::uint32_t warmup = 20;             // accepted values before the rule judges
  std::uint32_t level_shift_after = 20;  // 2 to kMaxLevelShiftAfter
};

// Plain data; zero at the start.
struct EmaState {
  double mean = 0;
  double variance = 0;  // during warm-up the sum of squared deviations
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
  PendingLevel pending;
};

// Deviations below this share of the mean count as noise: a run of equal values has none of its
// own.
inline constexpr double kMinRelativeDeviation = 0.01;
// How far values of one level may lie apart.
inline constexpr double kLevelMultiple = 3.0;

GRADWARDEN_HD inline bool ema_judges(const EmaState& state, const EmaOptions& options) {
  return state.count >= options.warmup;
}

// mean + z * deviation; 0 during warm-up.
GRADWARDEN_HD inline double ema_threshold(const EmaState& state, const EmaOptions& options,
                                          double z) {
  if (!ema_judges(state, options)) return 0;
  const double deviation = std::sqrt(state.variance);
  const double least = kMinRelativeDeviation * state.mean;
  return state.mean + z * (deviation > least ? deviation : least);
}

GRADWARDEN_HD inline void push_ema(EmaState& state, const EmaOptions& options, double value) {
  if (state.count < options.warmup) {  // Welford's sums, so that the first values weigh alike
    ++state.count;
    const double delta = value - state.mean;
    state.mean += delta / state.count;
    state.variance += delta * (value - state.mean);
    if (state.count == options.warmup) state.variance /= state.count;
    return;
  }
  state.mean = options.decay * state.mean + (1 - options.decay) * value;
  const double delta = value - state.mean;
  state.variance = options.decay * state.variance + (1 - options.decay) * delta * delta;
}

// Takes a finite value of which it is known whether it is an outlier. True: a level shift, and the
// average has started again.
GRADWARDEN_HD inline bool enter_ema(EmaState& state, const EmaOptions& options, double value,
                                    bool outlier) {
  if (!outlier) {
    state.pending.flagged = 0;
    push_ema(state, options, value);
    return false;
  }
  const std::uint32_t length = options.level_shift_after;
  if (!add_outlier(state.pending, length, kLevelMultiple, value)) return false;
  state.mean = state.variance = 0;
  state.count = 0;
  EmaOptions again = options;  // judges at once: as many values as a level has are enough
  again.warmup = length;
  for (std::uint32_t i = 0; i < length; ++i) {
    push_ema(state, again, pending_value(state.pending, length, i));
  }
  state.count = options.warmup > length ? options.warmup : length;
  state.pending.flagged = 0;
  return true;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_EMA_RULE_H_
