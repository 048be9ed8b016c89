// The kinds of events, as they stand in events, metrics, logs and alert rules. A name is part of
// the product's interface: it is never reused for something else.
#ifndef GRADWARDEN_DAEMON_DETECT_KINDS_H_
#define GRADWARDEN_DAEMON_DETECT_KINDS_H_

#include <string_view>

namespace gradwarden::detect {

// The grad norm lay above a multiple of the mean of the last accepted steps.
inline constexpr std::string_view kGradSpike = "grad_spike";
// NaN or Inf among the gradients, or a norm that is not finite.
inline constexpr std::string_view kNonFinite = "non_finite";
// Many spikes in a row formed a stable new level, from which the rule now starts again.
inline constexpr std::string_view kLevelShift = "level_shift";
// Replicas of the same elements differ between ranks: silent corruption, or ranks out of step.
inline constexpr std::string_view kReplicaDesync = "replica_desync";
// One rank's own gradient, before any reduction, is far larger or smaller than all others'.
inline constexpr std::string_view kRankOutlier = "rank_outlier";

// Signals of kRankOutlier: how many times the norm is above or below the median of the ranks.
inline constexpr std::string_view kLocalNormAbove = "local_norm_above_median";
inline constexpr std::string_view kLocalNormBelow = "local_norm_below_median";

inline constexpr std::string_view kAllKinds[] = {kGradSpike, kNonFinite, kLevelShift,
                                                 kReplicaDesync, kRankOutlier};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_KINDS_H_
