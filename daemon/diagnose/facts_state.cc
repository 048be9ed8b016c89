// The saved form of Facts.
#include "daemon/detect/state_bytes.h"
#include "daemon/diagnose/facts.h"

namespace gradwarden::diagnose {
namespace {

using detect::StateReader;
using detect::StateWriter;

void save_counts(StateWriter& out, const std::map<std::string, std::uint64_t>& counts) {
  out.value(static_cast<std::uint32_t>(counts.size()));
  for (const auto& [name, count] : counts) {
    out.text(name);
    out.value(count);
  }
}

void restore_counts(StateReader& in, std::map<std::string, std::uint64_t>& counts) {
  counts.clear();
  const auto size = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < size && in.ok(); ++i) {
    const std::string name = in.text();
    counts[name] = in.value<std::uint64_t>();
  }
}

}  // namespace

void Facts::save(StateWriter& out) const {
  out.value(rows_);
  out.value(static_cast<std::uint8_t>(has_batches_));
  out.value(static_cast<std::uint8_t>(has_ranks_));
  out.value(scale_seen_);
  for (const std::uint64_t value : {rate_rows_, rise_begin_row_, rise_end_row_, rise_rows_}) {
    out.value(value);
  }
  out.value(rate_);
  out.value(rise_from_);
  out.value(static_cast<std::uint32_t>(spiked_.size()));
  for (const SpikedBatch& batch : spiked_) {
    out.text(batch.id);
    out.value(batch.step);
    out.text(batch.attempt);
  }
  save_counts(out, shard_rows_);
  save_counts(out, shard_spikes_);
  out.value(sharded_spikes_);
  out.value(spikes_);
  out.value(static_cast<std::uint32_t>(spike_rows_.size()));
  for (const std::uint64_t row : spike_rows_) out.value(row);
  out.value(static_cast<std::uint8_t>(ill_rank_.has_value()));
  out.value(ill_rank_.value_or(RankSeen{}).rank);
  out.value(ill_rank_.value_or(RankSeen{}).row);
  out.value(static_cast<std::uint8_t>(ill_rank_.value_or(RankSeen{}).desync));
  out.value(rank_incidents_);
  out.value(update_spike_row_);
  out.value(static_cast<std::uint32_t>(group_logs_.size()));
  for (std::size_t i = 0; i < group_logs_.size(); ++i) {
    out.value(group_logs_[i]);
    out.text(group_names_[i]);
  }
  for (const std::uint64_t value : {group_rows_, clip_rows_, clipped_rows_, norm_rows_}) {
    out.value(value);
  }
  out.value(norm_log_);
  out.value(static_cast<std::uint32_t>(ill_since_.size()));
  for (const auto& [rank, step] : ill_since_) {
    out.value(rank);
    out.value(step);
  }
}

bool Facts::restore(StateReader& in) {
  rows_ = in.value<std::uint64_t>();
  has_batches_ = in.boolean();
  has_ranks_ = in.boolean();
  scale_seen_ = in.value<double>();
  for (std::uint64_t* value : {&rate_rows_, &rise_begin_row_, &rise_end_row_, &rise_rows_}) {
    *value = in.value<std::uint64_t>();
  }
  rate_ = in.value<double>();
  rise_from_ = in.value<double>();
  spiked_.clear();
  const auto batches = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < batches && in.ok(); ++i) {
    SpikedBatch& batch = spiked_.emplace_back();
    batch.id = in.text();
    batch.step = in.value<std::uint64_t>();
    batch.attempt = in.text();
  }
  restore_counts(in, shard_rows_);
  restore_counts(in, shard_spikes_);
  sharded_spikes_ = in.value<std::uint64_t>();
  spikes_ = in.value<std::uint64_t>();
  spike_rows_.clear();
  const auto spike_rows = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < spike_rows && in.ok(); ++i) {
    spike_rows_.push_back(in.value<std::uint64_t>());
  }
  const bool ill = in.boolean();
  RankSeen seen;
  seen.rank = in.value<std::uint32_t>();
  seen.row = in.value<std::uint64_t>();
  seen.desync = in.boolean();
  ill_rank_.reset();
  if (ill) ill_rank_ = seen;
  rank_incidents_ = in.value<std::uint64_t>();
  update_spike_row_ = in.value<std::uint64_t>();
  group_logs_.clear();
  group_names_.clear();
  const auto groups = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < groups && in.ok(); ++i) {
    group_logs_.push_back(in.value<float>());
    group_names_.push_back(in.text());
  }
  for (std::uint64_t* value : {&group_rows_, &clip_rows_, &clipped_rows_, &norm_rows_}) {
    *value = in.value<std::uint64_t>();
  }
  norm_log_ = in.value<double>();
  ill_since_.clear();
  if (in.at_end()) return in.ok();  // a state of before there were ill ranks in it
  const auto ranks = in.value<std::uint32_t>();
  for (std::uint32_t i = 0; i < ranks && in.ok(); ++i) {
    const auto rank = in.value<std::uint32_t>();
    ill_since_[rank] = in.value<std::uint64_t>();
  }
  return in.ok();
}

}  // namespace gradwarden::diagnose
