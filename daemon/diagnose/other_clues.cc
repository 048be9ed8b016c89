// Evidence about what is not finite, and about the findings of single rules, which mostly say
// themselves what they point to.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "daemon/detect/kinds.h"
#include "daemon/diagnose/causes.h"
#include "daemon/diagnose/diagnose.h"

namespace gradwarden::diagnose {
namespace {

using detect::Incident;

constexpr std::uint64_t kJustBefore = 30;  // reported steps
// Norms that differ by so much from the first group to the last, nearly all in one direction.
constexpr double kSteep = 30;
constexpr double kOneDirection = 0.5;

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

void depth_clue(const Facts& facts, double weight, std::vector<Clue>& clues) {
  const auto profile = facts.depth_profile();
  if (!profile || profile->factor < kSteep || std::abs(profile->direction) < kOneDirection) return;
  clues.push_back({kArchitecture, weight,
                   std::string("norms ") + (profile->direction > 0 ? "grow" : "shrink") +
                       " from group to group, " + text(profile->factor) +
                       " times in all; the largest is " + profile->steepest});
}

std::vector<Clue> divergence_clues(const Incident&, const Facts& facts) {
  std::vector<Clue> clues = {
      {kLearningRate, 0.5, "the loss went up and stayed up: steps undo what was learnt"}};
  if (facts.rows_since_rate_rose().value_or(~0ull) <= kJustBefore) {
    clues.push_back({kLearningRate, 0.5, "the learning rate is rising, or did until just before"});
  }
  return clues;
}

std::vector<Clue> vanishing_clues(const Incident&, const Facts& facts) {
  std::vector<Clue> clues;
  depth_clue(facts, 0.75, clues);
  if (clues.empty()) {
    clues.push_back({kConfiguration, 0.55,
                     facts.has_groups()
                         ? "all groups are small alike: initialisation, or the scale of the loss"
                         : "gradients are small from the start: initialisation or residual paths"});
  }
  return clues;
}

std::vector<Clue> collapse_clues(const Incident& incident, const Facts& facts) {
  const auto since = facts.rows_since_rate_rose();
  if (since && *since <= std::max(kJustBefore, facts.rise_rows())) {
    return {{kLearningRate, 0.6,
             "units died while, or soon after, the learning rate rose: steps threw them out of "
             "range"}};
  }
  return {{kArchitecture, 0.5,
           incident.group.empty()
               ? "gradients vanished at once: dead activations or a cut path"
               : "dead activations in " + incident.group + ", or a cut path to it"}};
}

std::vector<Clue> shift_clues(const Incident& incident, const Facts& facts) {
  const auto since = facts.rows_since_rate_rose();
  std::vector<Clue> clues;
  if (since && *since <= kJustBefore + incident.flagged_steps) {
    clues.push_back({kLearningRate, 0.5, "the learning rate rose just before"});
  }
  return clues;
}

std::vector<Clue> clip_clues(const Incident& incident, const Facts& facts) {
  if (incident.kind == detect::kClipNever) {
    return {{kConfiguration, 0.7,
             "the threshold of " + text(incident.baseline) +
                 " was never reached; the usual norm is " + text(facts.usual_norm())}};
  }
  if (incident.kind == detect::kClipRateRaised) {
    return {{kLearningRate, 0.45, "clipping on 5 to 10 % of the steps often means a high rate"}};
  }
  std::vector<Clue> clues = {
      {kConfiguration, 0.6, "clipping sets the size of most updates, not of the exceptions"}};
  if (incident.baseline > 0 && facts.usual_norm() > 2 * incident.baseline) {
    clues.push_back({kConfiguration, 0.5,
                     "the usual norm of " + text(facts.usual_norm()) + " is " +
                         text(facts.usual_norm() / incident.baseline) + " times the threshold"});
  }
  return clues;
}

}  // namespace

std::vector<Clue> number_clues(const Incident& incident, const Facts& facts) {
  std::vector<Clue> clues;
  const bool overflow = incident.severity == detect::Severity::kInfo;
  if (overflow) {
    return {{kNumerics, 0.5, "the dynamic loss scale met its limit, which is its way of working"}};
  }
  const bool rose = facts.spike_seen_within(kJustBefore);
  if (rose) {
    clues.push_back({kLearningRate, 0.55,
                     "gradients or loss had risen before: the model ran away until numbers ended"});
  } else {
    clues.push_back({kNumerics, 0.5,
                     "nothing had risen before: one operation gave a value that is not a number"});
  }
  if (facts.half_precision()) {
    clues.push_back({kNumerics, 0.4, "fp16 with a loss scale: its range ends at 65504"});
  }
  if (!incident.tensor.empty() && !rose) {
    clues.push_back({kNumerics, 0.3, "it was seen first in " + incident.tensor});
  }
  if (incident.born_locally && incident.rank) {
    clues.push_back({kHardware, rose ? 0.3 : 0.45,
                     "it was born on rank " + std::to_string(*incident.rank) + " alone"});
  }
  if (facts.spiked_before(incident.batch_ids, incident.peak_step) != nullptr) {
    clues.push_back({kData, 0.8, "its batch spiked before"});
  }
  return clues;
}

std::vector<Clue> other_clues(const Incident& incident, const Facts& facts) {
  const std::string& kind = incident.kind;
  if (kind == detect::kDivergence) return divergence_clues(incident, facts);
  if (kind == detect::kVanishing) return vanishing_clues(incident, facts);
  if (kind == detect::kLevelShift) return shift_clues(incident, facts);
  if (kind == detect::kClipRateHigh || kind == detect::kClipRateRaised ||
      kind == detect::kClipNever) {
    return clip_clues(incident, facts);
  }
  if (kind == detect::kSpikesGrow) {
    return {{kLearningRate, 0.6, "spikes come ever more often as training goes on"}};
  }
  if (kind == detect::kGroupOutlier) {
    return {{kArchitecture, 0.6,
             "group " + incident.group + " alone left what is usual for it, before any other"}};
  }
  if (kind == detect::kGradientCollapse) return collapse_clues(incident, facts);
  if (kind == detect::kExplodingStart) {
    return {{kArchitecture, 0.6,
             "nothing bounds what passes through the model: no norm layers, or a large "
             "initialisation"}};
  }
  if (kind == detect::kDepthImbalance) {
    return {{kArchitecture, 0.7,
             "without norms or residual paths each layer multiplies what passes through it"}};
  }
  if (kind == detect::kOverflowBurst) {
    return {{kNumerics, 0.75, "overflows come closer together than a loss scale's own attempts"}};
  }
  if (kind == detect::kLossScaleCollapse) {
    return {
        {kNumerics, 0.8, "no scale is small enough: values leave the range of fp16 themselves"}};
  }
  if (kind == detect::kUpdateSpike) {
    return {
        {kLearningRate, 0.35, "the update grew without the schedule: moments of the optimizer"}};
  }
  if (kind == detect::kReplicaDesync) {
    const bool identical = incident.severity == detect::Severity::kCritical;
    if (!identical) return {{kNumerics, 0.5, "the difference is as small as rounding makes it"}};
    return {{kHardware, 0.75, "replicas of the same elements differ bit for bit"}};
  }
  if (kind == detect::kRankOutlier) {
    std::vector<Clue> clues = {
        {kHardware, 0.65, "one rank alone differs, by its own gradients before any reduction"}};
    if (incident.rank && facts.ill_before(*incident.rank, incident.start_step)) {
      clues.push_back({kHardware, 0.4, "it is not the first time for this rank"});
    }
    return clues;
  }
  if (kind == detect::kStalledRun && incident.rank_count == 1) {
    return {{kHardware, 0.5, "one rank is behind all others"}};
  }
  if (kind == detect::kSilentRank) {
    return {{kHardware, 0.5, "the other ranks are alive"}};
  }
  return {};
}

}  // namespace gradwarden::diagnose
