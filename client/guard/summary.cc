#include "client/guard/summary.h"

#include <algorithm>
#include <cmath>

namespace gradwarden::guard {
namespace {

NonFiniteSummary first_of(const Segment& segment, const kernels::Statistics& s) {
  return {segment.tensor, segment.whole_index(s.first_non_finite), s.nan_count, s.inf_count};
}

NonFiniteTensor finding(const NonFiniteSummary& s, std::size_t rank, bool local) {
  return {static_cast<std::uint32_t>(s.tensor),
          static_cast<std::uint32_t>(rank),
          s.index,
          s.nan_count,
          s.inf_count,
          local};
}

void add_power(double& whole, const kernels::Statistics& s, double norm_type) {
  whole = std::isinf(norm_type) ? std::max(whole, s.max_abs) : whole + s.power_sum;
}

void append_bounded(std::vector<NonFiniteTensor>& out, const NonFiniteTensor& finding) {
  if (out.size() < kMaxNonFinite) out.push_back(finding);
}

void take_headers(const RankHeaders& headers, double unscale, GlobalStatistics& global) {
  global.observed = true;
  for (std::size_t rank = 0; rank < headers.count; ++rank) {
    const RankHeader& header = headers[rank];
    const double shard = header.shard_power_sum;  // for p = infinity it is the norm itself
    const double local = header.local_power_sum;
    global.shard_norms[rank] = kernels::norm_of(shard, shard, global.norm_type) * unscale;
    global.local_norms[rank] = kernels::norm_of(local, local, global.norm_type) * unscale;
    global.local_non_finite_counts[rank] = header.local_non_finite;
    global.observed = global.observed && header.observed != 0;
  }
}

void take_groups(double unscale, GlobalStatistics& global) {
  kernels::GlobalSums all;
  for (std::size_t group = 0; group < global.fold.size(); ++group) {
    const GroupSummary& sum = global.fold[group];
    kernels::add_group(sum, all);
    global.group_norms[group] =
        kernels::norm_of(sum.power_sum, sum.max_abs, global.norm_type) * unscale;
    global.group_max_abs[group] = sum.max_abs * unscale;
    global.group_nan_counts[group] = kernels::count_up(sum.nan_count);
    global.group_inf_counts[group] = kernels::count_up(sum.inf_count);
    global.group_zero_counts[group] = kernels::count_near(sum.zero_count);
  }
  global.norm = kernels::norm_of(all.power_sum, all.max_abs, global.norm_type) * unscale;
  global.max_abs = all.max_abs * unscale;
  global.nan_count = all.nan_count;
  global.inf_count = all.inf_count;
  global.zero_count = all.zero_count;
}

void list_non_finite(const RankHeaders& headers, GlobalStatistics& global) {
  global.non_finite.clear();
  for (std::size_t rank = 0; rank < headers.count; ++rank) {
    const RankHeader& header = headers[rank];
    if (header.local_non_finite != 0) {
      append_bounded(global.non_finite, finding(header.local_first, rank, true));
    }
  }
  for (std::size_t rank = 0; rank < headers.count; ++rank) {
    const RankHeader& header = headers[rank];
    if (header.shard_non_finite != 0) {
      append_bounded(global.non_finite, finding(header.shard_first, rank, false));
    }
  }
}

// Only where each rank's own gradient is of the whole model, and all of it is finite.
void observe_noise(GlobalStatistics& global) {
  const std::size_t ranks = global.local_norms.size();
  if (!global.observed || !global.local_is_whole || ranks < 2 || global.norm_type != 2) return;
  double squares = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    if (global.local_non_finite_counts[rank] != 0) return;
    squares += global.local_norms[rank] * global.local_norms[rank];
  }
  if (global.nan_count + global.inf_count != 0) return;
  global.noise_scale.observe(squares, global.norm * global.norm, static_cast<std::uint32_t>(ranks));
}

bool is_same(const NonFiniteTensor& a, const NonFiniteTensor& b) {
  return a.tensor == b.tensor && a.rank == b.rank && a.index == b.index && a.local == b.local;
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

void add_to_groups(std::span<const Segment> segments,
                   std::span<const kernels::Statistics> statistics,
                   std::span<GroupSummary> groups) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const kernels::Statistics& s = statistics[i];
    const double weight = 1.0 / segments[i].replicas;
    kernels::add_part(
        {s.power_sum * weight, s.max_abs, static_cast<double>(s.nan_count) * weight,
         static_cast<double>(s.inf_count) * weight, static_cast<double>(s.zero_count) * weight},
        groups[segments[i].group]);
  }
}

void summarize_shards(std::span<const Segment> segments,
                      std::span<const kernels::Statistics> statistics, double norm_type,
                      RankHeader& header, std::span<GroupSummary> groups) {
  std::fill(groups.begin(), groups.end(), GroupSummary{});
  add_to_groups(segments, statistics, groups);
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const kernels::Statistics& s = statistics[i];
    add_power(header.shard_power_sum, s, norm_type);
    if (s.non_finite() && header.shard_non_finite == 0)
      header.shard_first = first_of(segments[i], s);
    header.shard_non_finite += s.nan_count + s.inf_count;
  }
}

void summarize_local(std::span<const Segment> segments,
                     std::span<const kernels::Statistics> statistics, double norm_type,
                     RankHeader& header) {
  header.observed = 1;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const kernels::Statistics& s = statistics[i];
    add_power(header.local_power_sum, s, norm_type);
    if (s.non_finite() && header.local_non_finite == 0)
      header.local_first = first_of(segments[i], s);
    header.local_non_finite += s.nan_count + s.inf_count;
  }
}

void fold_ranks(const void* gathered, std::size_t stride, std::size_t world_size,
                GlobalStatistics& global) {
  for (std::size_t group = 0; group < global.fold.size(); ++group) {
    global.fold[group] = kernels::fold_group(gathered, world_size, stride, group);
  }
  finish({gathered, stride, world_size}, global);
}

void finish(const RankHeaders& headers, GlobalStatistics& global) {
  global.loss_scale = headers[0].loss_scale;
  const double unscale = global.loss_scale > 0 ? 1.0 / global.loss_scale : 1.0;
  take_headers(headers, unscale, global);
  take_groups(unscale, global);
  list_non_finite(headers, global);
  observe_noise(global);
}

void describe_groups_and_ranks(const GlobalStatistics& global, StepRecord& record) {
  record.group_norms = global.group_norms;
  record.group_max_abs = global.group_max_abs;
  record.group_nan_counts = global.group_nan_counts;
  record.group_inf_counts = global.group_inf_counts;
  record.group_zero_counts = global.group_zero_counts;
  record.shard_norms = global.shard_norms;
  if (global.observed) {
    record.local_norms = global.local_norms;
    record.local_non_finite_counts = global.local_non_finite_counts;
  }
  const double noise = global.noise_scale.value();
  if (std::isfinite(noise)) record.gradient_noise_scale = noise;
}

bool at_same_step(const RankHeaders& headers) {
  for (std::size_t rank = 1; rank < headers.count; ++rank) {
    if (headers[rank].sequence != headers[0].sequence) return false;
  }
  return true;
}

void append_own_non_finite(std::span<const Segment> segments,
                           std::span<const kernels::Statistics> statistics, std::uint32_t rank,
                           bool local, std::vector<NonFiniteTensor>& out) {
  for (std::size_t i = 0; i < segments.size(); ++i) {
    if (!statistics[i].non_finite()) continue;
    const NonFiniteTensor found = finding(first_of(segments[i], statistics[i]), rank, local);
    if (std::none_of(out.begin(), out.end(),
                     [&found](const NonFiniteTensor& listed) { return is_same(listed, found); })) {
      append_bounded(out, found);
    }
  }
}

}  // namespace gradwarden::guard
