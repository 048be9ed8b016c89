#include "daemon/diagnose/facts.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::diagnose {
namespace {

constexpr std::size_t kSpikedBatches = 256;
constexpr std::size_t kShards = 64;
constexpr std::size_t kSpikeRows = 64;
constexpr std::size_t kIllRanks = 256;
// A rate that is higher by less is the same.
constexpr double kRateRises = 1.001;
// Without a rise for so many rows the next one is another.
constexpr std::uint64_t kRisePause = 10;
constexpr std::uint64_t kAverageRows = 64;
constexpr std::uint64_t kGroupsEvery = 4;  // rows between two looks at the groups
constexpr std::uint64_t kLeastGroupRows = 5;
constexpr std::size_t kLeastDepth = 4;
constexpr double kTiny = 1e-30;

// "shard3/" of "shard3/batch7"; empty where there is no part before the last separator.
std::string shard_of(std::string_view id) {
  const std::size_t end = id.find_last_of("/:");
  return end == std::string_view::npos ? std::string() : std::string(id.substr(0, end + 1));
}

void average(double& value, double next, std::uint64_t rows) {
  value += (next - value) / static_cast<double>(std::min(rows, kAverageRows));
}

bool is_spike(const detect::Incident& incident) {
  return incident.kind == detect::kGradSpike || incident.kind == detect::kLossSpike;
}

}  // namespace

void Facts::observe(const detect::Step& step) {
  ++rows_;
  has_ranks_ = has_ranks_ || !step.local_norms.empty();
  if (step.loss_scale) scale_seen_ = std::max(scale_seen_, *step.loss_scale);
  if (step.learning_rate && std::isfinite(*step.learning_rate)) observe_rate(step);
  observe_groups(step);
  if (step.clipped && !is_non_finite(step)) {
    ++clip_rows_;
    clipped_rows_ += *step.clipped ? 1 : 0;
  }
  if (step.grad_norm && *step.grad_norm > 0 && !is_non_finite(step)) {
    average(norm_log_, std::log(*step.grad_norm), ++norm_rows_);
  }
  if (step.batch_ids.empty()) return;
  has_batches_ = true;
  const std::string shard = shard_of(step.batch_ids.front());
  if (shard.empty()) return;
  const auto known = shard_rows_.find(shard);
  if (known != shard_rows_.end()) {
    ++known->second;
  } else if (shard_rows_.size() < kShards) {
    shard_rows_.emplace(shard, 1);
  }
}

void Facts::observe_rate(const detect::Step& step) {
  const double rate = *step.learning_rate;
  if (++rate_rows_ > 1 && rate > kRateRises * rate_) {
    if (rise_end_row_ == 0 || rows_ > rise_end_row_ + kRisePause) {
      rise_from_ = rate_;
      rise_begin_row_ = rows_;
    }
    rise_end_row_ = rows_;
    rise_rows_ = rise_end_row_ - rise_begin_row_ + 1;
  }
  rate_ = rate;
}

void Facts::observe_groups(const detect::Step& step) {
  if (step.group_norms.empty() || is_non_finite(step) || rows_ % kGroupsEvery != 0) return;
  const std::size_t groups = step.group_norms.size();
  if (group_logs_.size() != groups) {
    group_logs_.assign(groups, 0);
    group_names_.assign(step.group_names.begin(), step.group_names.end());
    group_names_.resize(groups);
    group_rows_ = 0;
  }
  ++group_rows_;
  const auto weight = 1 / static_cast<float>(std::min(group_rows_, kAverageRows));
  for (std::size_t i = 0; i < groups; ++i) {
    const double norm = step.group_norms[i];
    if (!std::isfinite(norm)) continue;
    group_logs_[i] += weight * (static_cast<float>(std::log(norm + kTiny)) - group_logs_[i]);
  }
}

void Facts::note_incident(const detect::Incident& incident) {
  if (incident.kind == detect::kUpdateSpike) update_spike_row_ = rows_;
  const bool of_rank = incident.kind == detect::kRankOutlier && incident.rank.has_value();
  const bool desync =
      incident.kind == detect::kReplicaDesync && incident.severity == detect::Severity::kCritical;
  if (of_rank || desync) {
    ++rank_incidents_;
    const std::uint32_t rank = of_rank                  ? *incident.rank
                               : incident.ranks.empty() ? 0
                                                        : incident.ranks.front();
    ill_rank_ = RankSeen{rank, rows_, desync};
    if (ill_since_.size() < kIllRanks) ill_since_.emplace(rank, incident.start_step);
  }
  if (!is_spike(incident)) return;
  ++spikes_;
  spike_rows_.push_back(rows_);
  if (spike_rows_.size() > kSpikeRows) spike_rows_.pop_front();
  for (const std::string& id : incident.batch_ids) {
    remember({id, incident.peak_step, ""});
  }
  if (incident.batch_ids.empty()) return;
  const std::string shard = shard_of(incident.batch_ids.front());
  ++sharded_spikes_;
  if (!shard.empty() && (shard_spikes_.count(shard) != 0 || shard_spikes_.size() < kShards)) {
    ++shard_spikes_[shard];
  }
}

void Facts::remember(SpikedBatch batch) {
  const auto same = std::find_if(spiked_.begin(), spiked_.end(), [&](const SpikedBatch& known) {
    return known.id == batch.id && known.step == batch.step && known.attempt == batch.attempt;
  });
  if (same != spiked_.end()) return;
  spiked_.push_back(std::move(batch));
  if (spiked_.size() > kSpikedBatches) spiked_.pop_front();
}

std::optional<std::uint64_t> Facts::rows_since_rate_rose() const {
  if (rise_end_row_ == 0) return std::nullopt;
  return rows_ - rise_end_row_;
}

const SpikedBatch* Facts::spiked_before(const std::vector<std::string>& ids,
                                        std::uint64_t step) const {
  for (const SpikedBatch& known : spiked_) {
    if (known.attempt.empty() && known.step == step) continue;
    if (std::find(ids.begin(), ids.end(), known.id) != ids.end()) return &known;
  }
  return nullptr;
}

std::string Facts::spiking_shard() const {
  constexpr std::uint64_t kLeastSpikes = 3;
  if (sharded_spikes_ < kLeastSpikes || shard_spikes_.size() != 1) return "";
  const auto& [shard, count] = *shard_spikes_.begin();
  const auto rows = shard_rows_.find(shard);
  const bool all = count == sharded_spikes_;
  const bool small = rows != shard_rows_.end() && rows->second * 3 < rows_;
  return all && small ? shard : std::string();
}

std::size_t Facts::spikes_within(std::uint64_t rows) const {
  return static_cast<std::size_t>(
      std::count_if(spike_rows_.begin(), spike_rows_.end(),
                    [&](std::uint64_t row) { return row + rows >= rows_; }));
}

bool Facts::ill_before(std::uint32_t rank, std::uint64_t step) const {
  const auto known = ill_since_.find(rank);
  return known != ill_since_.end() && known->second < step;
}

std::optional<std::uint64_t> Facts::rows_since_update_spike() const {
  if (update_spike_row_ == 0) return std::nullopt;
  return rows_ - update_spike_row_;
}

std::optional<Facts::DepthProfile> Facts::depth_profile() const {
  if (group_logs_.size() < kLeastDepth || group_rows_ < kLeastGroupRows) return std::nullopt;
  DepthProfile profile;
  double signs = 0;
  for (std::size_t i = 1; i < group_logs_.size(); ++i) {
    signs += group_logs_[i] > group_logs_[i - 1] ? 1 : -1;
  }
  profile.direction = signs / static_cast<double>(group_logs_.size() - 1);
  const auto [low, high] = std::minmax_element(group_logs_.begin(), group_logs_.end());
  profile.factor = std::exp(static_cast<double>(*high - *low));
  profile.steepest = group_names_[static_cast<std::size_t>(high - group_logs_.begin())];
  return profile;
}

double Facts::clip_share() const {
  return clip_rows_ == 0 ? 0 : static_cast<double>(clipped_rows_) / static_cast<double>(clip_rows_);
}

double Facts::usual_norm() const { return norm_rows_ == 0 ? 0 : std::exp(norm_log_); }

}  // namespace gradwarden::diagnose
