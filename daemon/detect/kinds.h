// The kinds of events, as they stand in events, metrics, logs and alert rules. A name is part of
// the product's interface: it is never reused for something else.
#ifndef GRADWARDEN_DAEMON_DETECT_KINDS_H_
#define GRADWARDEN_DAEMON_DETECT_KINDS_H_

#include <string_view>

namespace gradwarden::detect {

// The grad norm lay above a multiple of the mean of the last accepted steps, or above what is
// normal for this run.
inline constexpr std::string_view kGradSpike = "grad_spike";
// The loss alone lay above what is normal for this run; where the grad norm rose with it, both are
// one grad_spike.
inline constexpr std::string_view kLossSpike = "loss_spike";
// NaN or Inf among the gradients, or a norm or loss that is not finite; also overflows
// that a dynamic loss scale handled (information).
inline constexpr std::string_view kNonFinite = "non_finite";
// Many spikes in a row formed a stable new level, from which the rule now starts again.
inline constexpr std::string_view kLevelShift = "level_shift";
// Replicas of the same elements differ between ranks: silent corruption, or ranks out of step.
inline constexpr std::string_view kReplicaDesync = "replica_desync";
// One rank's own gradient, before any reduction, is far larger or smaller than all others'.
inline constexpr std::string_view kRankOutlier = "rank_outlier";

// The grad norm stays below 1e-5 (or what is configured) and does not grow out of it.
inline constexpr std::string_view kVanishing = "vanishing";
// The grad norm fell to a small part of what it was, all at once, and stays there.
inline constexpr std::string_view kGradientCollapse = "gradient_collapse";
// The loss rises away from its best, slowly and steadily.
inline constexpr std::string_view kDivergence = "divergence";
// Advice: clipping acts on most steps, on 5 to 10 % of them, or never in a long run.
inline constexpr std::string_view kClipRateHigh = "clip_rate_high";
inline constexpr std::string_view kClipRateRaised = "clip_rate_raised";
inline constexpr std::string_view kClipNever = "clip_never";
// Advice: spikes come ever more often.
inline constexpr std::string_view kSpikesGrow = "spike_frequency_grows";
// One group's norm left what is usual for it while the others stayed.
inline constexpr std::string_view kGroupOutlier = "group_outlier";
// Advice: norms grow or shrink with depth by orders of magnitude.
inline constexpr std::string_view kDepthImbalance = "depth_imbalance";
// Advice: gradients of the first steps were orders of magnitude above what became usual.
inline constexpr std::string_view kExplodingStart = "exploding_start";
// fp16: many overflows close together; a dynamic loss scale that falls and falls.
inline constexpr std::string_view kOverflowBurst = "overflow_burst";
inline constexpr std::string_view kLossScaleCollapse = "loss_scale_collapse";
// The norm of the optimizer's update lay above what is normal for this run.
inline constexpr std::string_view kUpdateSpike = "update_spike";
// No report for longer than this run's steps take; ranks without a sign of life.
inline constexpr std::string_view kStalledRun = "stalled_run";
inline constexpr std::string_view kSilentRank = "silent_rank";
// An attempt of the run began after another one.
inline constexpr std::string_view kRestart = "restart";

inline constexpr std::string_view kGradNormSignal = "grad_norm";
inline constexpr std::string_view kLossSignal = "loss";
inline constexpr std::string_view kOverflowSignal = "loss_scale_overflows";

inline constexpr std::string_view kClipRateSignal = "clip_rate";
inline constexpr std::string_view kLossScaleSignal = "loss_scale";
inline constexpr std::string_view kGroupNormSignal = "group_norm";
inline constexpr std::string_view kUpdateNormSignal = "update_norm";
inline constexpr std::string_view kSpikesSignal = "spikes";
inline constexpr std::string_view kSilenceSignal = "seconds_without_report";
inline constexpr std::string_view kStepSignal = "step";

// Rules whose baseline an incident of a spike carries: a mean, and a median.
inline constexpr std::string_view kRollingMeanRule = "rolling_mean";
inline constexpr std::string_view kCalibratedRule = "calibrated";

// Signals of kRankOutlier: how many times the norm is above or below the median of the ranks.
inline constexpr std::string_view kLocalNormAbove = "local_norm_above_median";
inline constexpr std::string_view kLocalNormBelow = "local_norm_below_median";

inline constexpr std::string_view kAllKinds[] = {
    kGradSpike,         kLossSpike,   kNonFinite,        kLevelShift,   kReplicaDesync,
    kRankOutlier,       kVanishing,   kGradientCollapse, kDivergence,   kClipRateHigh,
    kClipRateRaised,    kClipNever,   kSpikesGrow,       kGroupOutlier, kOverflowBurst,
    kLossScaleCollapse, kUpdateSpike, kStalledRun,       kSilentRank,   kDepthImbalance,
    kExplodingStart,    kRestart};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_KINDS_H_
