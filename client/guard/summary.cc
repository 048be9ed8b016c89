#include "client/guard/summary.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace gradwarden::guard {
namespace {

NonFiniteSummary first_of(const Segment& segment, const kernels::Statistics& s) {
  return {segment.tensor, segment.offset + s.first_non_finite, s.nan_count, s.inf_count};
}

// Counts of replicas that disagree come out fractional; a non-finite element is never rounded away.
std::uint64_t count_up(double weighted) { return static_cast<std::uint64_t>(std::ceil(weighted)); }

NonFiniteTensor finding(const NonFiniteSummary& s, std::size_t rank, bool local) {
  return {static_cast<std::uint32_t>(s.tensor),
          static_cast<std::uint32_t>(rank),
          s.index,
          s.nan_count,
          s.inf_count,
          local};
}

void append_bounded(std::vector<NonFiniteTensor>& out, const NonFiniteTensor& finding) {
  if (out.size() < kMaxNonFinite) out.push_back(finding);
}

RankHeader header_of(const unsigned char* summary) {
  RankHeader header;
  std::memcpy(&header, summary, sizeof header);
  return header;
}

void fold_header(const RankHeader& header, std::size_t rank, double unscale,
                 GlobalStatistics& global) {
  global.shard_norms[rank] = std::sqrt(header.shard_power_sum) * unscale;
  global.local_norms[rank] = std::sqrt(header.local_power_sum) * unscale;
  global.local_non_finite_counts[rank] = header.local_non_finite;
  global.observed = global.observed && header.observed != 0;
}

void fold_groups(const unsigned char* gathered, std::size_t world_size, GlobalStatistics& global) {
  const std::size_t groups = global.fold.size();
  std::fill(global.fold.begin(), global.fold.end(), GroupSummary{});
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    const unsigned char* summary = gathered + rank * summary_bytes(groups) + sizeof(RankHeader);
    for (std::size_t group = 0; group < groups; ++group) {
      GroupSummary part;
      std::memcpy(&part, summary + group * sizeof part, sizeof part);
      GroupSummary& whole = global.fold[group];
      whole.power_sum += part.power_sum;
      whole.max_abs = std::max(whole.max_abs, part.max_abs);
      whole.nan_count += part.nan_count;
      whole.inf_count += part.inf_count;
      whole.zero_count += part.zero_count;
    }
  }
}

void finish_groups(double unscale, GlobalStatistics& global) {
  double power_sum = 0;
  global.max_abs = 0;
  global.nan_count = global.inf_count = global.zero_count = 0;
  for (std::size_t group = 0; group < global.fold.size(); ++group) {
    const GroupSummary& sum = global.fold[group];
    power_sum += sum.power_sum;
    global.group_norms[group] = std::sqrt(sum.power_sum) * unscale;
    global.group_max_abs[group] = sum.max_abs * unscale;
    global.group_nan_counts[group] = count_up(sum.nan_count);
    global.group_inf_counts[group] = count_up(sum.inf_count);
    global.group_zero_counts[group] = static_cast<std::uint64_t>(std::llround(sum.zero_count));
    global.max_abs = std::max(global.max_abs, global.group_max_abs[group]);
    global.nan_count += global.group_nan_counts[group];
    global.inf_count += global.group_inf_counts[group];
    global.zero_count += global.group_zero_counts[group];
  }
  global.norm = std::sqrt(power_sum) * unscale;
}

void list_non_finite(const unsigned char* gathered, std::size_t world_size,
                     GlobalStatistics& global) {
  const std::size_t stride = summary_bytes(global.fold.size());
  global.non_finite.clear();
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    const RankHeader header = header_of(gathered + rank * stride);
    if (header.local_non_finite != 0) {
      append_bounded(global.non_finite, finding(header.local_first, rank, true));
    }
  }
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    const RankHeader header = header_of(gathered + rank * stride);
    if (header.shard_non_finite != 0) {
      append_bounded(global.non_finite, finding(header.shard_first, rank, false));
    }
  }
}

}  // namespace

void GlobalStatistics::resize(std::size_t group_count, std::size_t world_size) {
  group_norms.assign(group_count, 0);
  group_max_abs.assign(group_count, 0);
  group_nan_counts.assign(group_count, 0);
  group_inf_counts.assign(group_count, 0);
  group_zero_counts.assign(group_count, 0);
  fold.assign(group_count, {});
  shard_norms.assign(world_size, 0);
  local_norms.assign(world_size, 0);
  local_non_finite_counts.assign(world_size, 0);
  non_finite.clear();
  non_finite.reserve(kMaxNonFinite);
}

void summarize_shards(std::span<const Segment> segments,
                      std::span<const kernels::Statistics> statistics, RankHeader& header,
                      std::span<GroupSummary> groups) {
  std::fill(groups.begin(), groups.end(), GroupSummary{});
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const kernels::Statistics& s = statistics[i];
    const double weight = 1.0 / segments[i].replicas;
    GroupSummary& group = groups[segments[i].group];
    group.power_sum += s.power_sum * weight;
    group.max_abs = std::max(group.max_abs, s.max_abs);
    group.nan_count += static_cast<double>(s.nan_count) * weight;
    group.inf_count += static_cast<double>(s.inf_count) * weight;
    group.zero_count += static_cast<double>(s.zero_count) * weight;
    header.shard_power_sum += s.power_sum;
    if (s.non_finite() && header.shard_non_finite == 0)
      header.shard_first = first_of(segments[i], s);
    header.shard_non_finite += s.nan_count + s.inf_count;
  }
}

void summarize_local(std::span<const Segment> segments,
                     std::span<const kernels::Statistics> statistics, RankHeader& header) {
  header.observed = 1;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const kernels::Statistics& s = statistics[i];
    header.local_power_sum += s.power_sum;
    if (s.non_finite() && header.local_non_finite == 0)
      header.local_first = first_of(segments[i], s);
    header.local_non_finite += s.nan_count + s.inf_count;
  }
}

void fold_ranks(const unsigned char* gathered, std::size_t world_size, GlobalStatistics& global) {
  global.loss_scale = header_of(gathered).loss_scale;
  global.observed = true;
  const double unscale = global.loss_scale > 0 ? 1.0 / global.loss_scale : 1.0;
  const std::size_t stride = summary_bytes(global.fold.size());
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    fold_header(header_of(gathered + rank * stride), rank, unscale, global);
  }
  fold_groups(gathered, world_size, global);
  finish_groups(unscale, global);
  list_non_finite(gathered, world_size, global);
}

void append_own_non_finite(std::span<const Segment> segments,
                           std::span<const kernels::Statistics> statistics, std::uint32_t rank,
                           bool local, std::vector<NonFiniteTensor>& out) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (!statistics[i].non_finite()) continue;
    append_bounded(out, finding(first_of(segments[i], statistics[i]), rank, local));
  }
}

}  // namespace gradwarden::guard
