// The rolling-mean rule: a value is a spike when it lies above a multiple of the mean of the last
// accepted values.
//
// Used by the guard (to skip) and by the daemon's detector (to flag). Window hygiene is what its
// peers lack:
//   - non-finite values and spikes never enter the window, so one NaN cannot disable the rule and
//   one spike cannot hide
//     the next;
//   - when `level_shift_after` spikes in a row form a stable level, the window starts again from
//   them and the shift is
//     reported once, so the rule cannot lock in on a level that is gone.
// The state is plain data: it can live in device memory and be saved byte for byte.
#ifndef GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_
#define GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

inline constexpr std::uint32_t kMaxWindow = 1024;
inline constexpr std::uint32_t kMaxLevelShiftAfter = 64;

struct SpikeRuleOptions {
  double multiple = 3.0;                 // > 1
  std::uint32_t window = 100;            // 1 to kMaxWindow accepted values
  std::uint32_t warmup = 20;             // 1 to window: accepted values before the rule judges
  std::uint32_t level_shift_after = 20;  // 2 to kMaxLevelShiftAfter consecutive spikes
};

struct SpikeRuleState {
  std::uint32_t count = 0;  // values in `window`
  std::uint32_t next = 0;   // slot of `window` that the next accepted value takes
  std::uint32_t flagged =
      0;  // consecutive spikes so far; the last level_shift_after of them are in `pending`
  std::uint32_t reserved = 0;
  double window[kMaxWindow] = {};
  double pending[kMaxLevelShiftAfter] = {};
};

enum class SpikeVerdict : std::uint8_t {
  kWarmup,      // accepted unjudged
  kAccepted,    // within the limit
  kSpike,       // above the limit; not entered
  kLevelShift,  // above the limit, and the window now holds the new level
  kNonFinite,   // not judged; not entered
};

struct SpikeJudgement {
  SpikeVerdict verdict = SpikeVerdict::kWarmup;
  double mean = 0;       // of the window before this value; 0 during warm-up
  double threshold = 0;  // multiple * mean; 0 during warm-up
};

// Sums in slot order, not in age order: the same slots give the same bits on host and device.
GRADWARDEN_HD inline double window_mean(const SpikeRuleState& state) {
  double sum = 0;
  for (std::uint32_t i = 0; i < state.count; ++i) sum += state.window[i];
  return state.count == 0 ? 0 : sum / state.count;
}

GRADWARDEN_HD inline void push_accepted(SpikeRuleState& state, const SpikeRuleOptions& options,
                                        double value) {
  state.window[state.next] = value;
  state.next = state.next + 1 >= options.window ? 0 : state.next + 1;
  if (state.count < options.window) ++state.count;
}

// True when none of the pending spikes would be a spike, nor a collapse, measured against their own
// mean.
GRADWARDEN_HD inline bool pending_is_level(const SpikeRuleState& state,
                                           const SpikeRuleOptions& options) {
  double sum = 0;
  double low = state.pending[0];
  double high = state.pending[0];
  for (std::uint32_t i = 0; i < options.level_shift_after; ++i) {
    const double value = state.pending[i];
    sum += value;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const double mean = sum / options.level_shift_after;
  return high <= options.multiple * mean && low * options.multiple >= mean;
}

GRADWARDEN_HD inline void restart_from_pending(SpikeRuleState& state,
                                               const SpikeRuleOptions& options) {
  state.count = 0;
  state.next = 0;
  const std::uint32_t length = options.level_shift_after;
  // `flagged` counts up without wrapping the ring index, so the oldest pending value is at flagged
  // % length.
  for (std::uint32_t i = 0; i < length; ++i) {
    push_accepted(state, options, state.pending[(state.flagged + i) % length]);
  }
  state.flagged = 0;
}

// Judges one value and updates the state. Norms are >= 0; a negative value is treated like any
// other number.
GRADWARDEN_HD inline SpikeJudgement judge(SpikeRuleState& state, const SpikeRuleOptions& options,
                                          double value) {
  SpikeJudgement result;
  const bool judging = state.count >= options.warmup;
  if (judging) {
    result.mean = window_mean(state);
    result.threshold = options.multiple * result.mean;
  }
  if (!std::isfinite(value)) {
    result.verdict = SpikeVerdict::kNonFinite;
    return result;
  }
  if (!judging || value <= result.threshold) {
    push_accepted(state, options, value);
    state.flagged = 0;
    result.verdict = judging ? SpikeVerdict::kAccepted : SpikeVerdict::kWarmup;
    return result;
  }
  state.pending[state.flagged % options.level_shift_after] = value;
  ++state.flagged;
  result.verdict = SpikeVerdict::kSpike;
  if (state.flagged >= options.level_shift_after && pending_is_level(state, options)) {
    restart_from_pending(state, options);
    result.verdict = SpikeVerdict::kLevelShift;
  }
  return result;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_SPIKE_RULE_H_
