// Evidence about spikes of grad norm and loss.
#include <algorithm>
#include <cstdio>

#include "daemon/detect/kinds.h"
#include "daemon/diagnose/causes.h"
#include "daemon/diagnose/diagnose.h"

namespace gradwarden::diagnose {
namespace {

using detect::Incident;

// A spike of so few rows left no trace in the model.
constexpr std::uint64_t kTransientRows = 3;
constexpr std::uint64_t kLastingRows = 6;
// So many spikes, each of another batch, are not the batches'.
constexpr std::uint64_t kManySpikes = 6;
constexpr std::uint64_t kManyWithinRows = 200;
// What happens so soon after a rise of the learning rate may be its doing.
constexpr std::uint64_t kSoonAfterRise = 20;
constexpr double kSharpRise = 1.5;
constexpr std::uint64_t kSharpRows = 3;
constexpr std::uint64_t kRankNear = 3;  // rows
constexpr std::uint64_t kUpdateLead = 30;

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.3g", value);
  return buffer;
}

std::uint64_t lead(const Incident& incident) {
  return incident.joined ? incident.joined->start_step - incident.start_step : 0;
}

void data_clues(const Incident& incident, const Facts& facts, std::vector<Clue>& clues) {
  if (const SpikedBatch* before = facts.spiked_before(incident.batch_ids, incident.peak_step)) {
    clues.push_back(
        {kData, 0.85,
         "batch " + before->id + " spiked before, at step " + std::to_string(before->step) +
             (before->attempt.empty() ? std::string() : " of attempt " + before->attempt)});
  }
  if (const std::string shard = facts.spiking_shard(); !shard.empty()) {
    clues.push_back({kData, 0.6, "all spikes with batch ids are of " + shard});
  }
  const bool loss_too = incident.kind == detect::kLossSpike || incident.joined.has_value();
  const bool together = loss_too && lead(incident) == 0;
  const bool transient = incident.flagged_steps <= kTransientRows;
  if (!together || !transient) return;
  const bool many = facts.spikes_within(kManyWithinRows) >= kManySpikes;
  if (many) return;
  const bool alone = incident.kind == detect::kLossSpike && !incident.joined;
  clues.push_back(
      {kData, alone ? 0.45 : 0.55,
       alone ? "the loss alone stood out and was normal again at once: the batch was unusual, not "
               "the model"
             : "loss and gradients rose in the same step and were normal again at once: the batch "
               "was unusual, not the model"});
}

void rate_clues(const Incident& incident, const Facts& facts, std::vector<Clue>& clues) {
  const auto since = facts.rows_since_rate_rose();
  if (since && facts.rise_rows() <= kSharpRows && facts.rise_factor() >= kSharpRise &&
      *since <= kSoonAfterRise) {
    clues.push_back({kLearningRate, 0.65,
                     "the learning rate was raised " + text(facts.rise_factor()) + " times " +
                         std::to_string(*since) + " reported steps before"});
  } else if (since && facts.rise_rows() > kSharpRows &&
             *since <= std::max(kSoonAfterRise, facts.rise_rows() / 5)) {
    clues.push_back({kLearningRate, 0.4,
                     *since == 0 ? "the learning rate is rising"
                                 : "the warm-up of the learning rate ended " +
                                       std::to_string(*since) + " reported steps before"});
  }
  if (lead(incident) > 0 && incident.signal == detect::kGradNormSignal) {
    clues.push_back({kLearningRate, 0.3,
                     "gradients rose " + std::to_string(lead(incident)) +
                         " steps before the loss: steps were too large for where the model was"});
  }
  if (incident.flagged_steps >= kLastingRows) {
    clues.push_back({kLearningRate, 0.3,
                     "it lasted " + std::to_string(incident.flagged_steps) +
                         " reported steps: the model itself was thrown off"});
  }
  if (facts.spikes_within(kManyWithinRows) >= kManySpikes) {
    clues.push_back({kLearningRate, 0.45,
                     std::to_string(facts.spikes_within(kManyWithinRows)) + " spikes in the last " +
                         std::to_string(std::min(kManyWithinRows, facts.rows())) +
                         " reported steps"});
  }
  const auto update = facts.rows_since_update_spike();
  if (update && *update <= kUpdateLead && *update > 0) {
    clues.push_back({kLearningRate, 0.3,
                     "the update norm was unusual " + std::to_string(*update) +
                         " reported steps before: the optimizer's moments were off"});
  }
}

}  // namespace

std::vector<Clue> spike_clues(const Incident& incident, const Facts& facts) {
  std::vector<Clue> clues;
  data_clues(incident, facts, clues);
  rate_clues(incident, facts, clues);
  const auto& ill = facts.last_ill_rank();
  if (ill && facts.rows() - ill->row <= kRankNear + incident.flagged_steps) {
    clues.push_back({kHardware, 0.8,
                     "rank " + std::to_string(ill->rank) +
                         (ill->desync ? " holds other replicas than the rest"
                                      : " alone had such gradients before the reduction")});
  }
  if (!incident.group.empty()) {
    clues.push_back({kArchitecture, 0.35,
                     "group " + incident.group + " rose first, and far more than the others"});
  }
  return clues;
}

}  // namespace gradwarden::diagnose
