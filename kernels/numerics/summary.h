// What one rank tells the others in a step, and how the ranks' summaries fold into one result.
//
// Layout of a rank's summary: one RankHeader, then one GroupSummary per group of the union, then,
// with adaptive clipping, one TensorSums per tensor of the union, as plain bytes of a size fixed at
// bind. What a step adds to that (an audit) follows behind. Host and device write and fold the same
// bytes by the same functions in the same order (ranks, then groups), so both come to the same
// bits.
#ifndef GRADWARDEN_KERNELS_NUMERICS_SUMMARY_H_
#define GRADWARDEN_KERNELS_NUMERICS_SUMMARY_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

// The first tensor of a rank that holds something non-finite.
struct NonFiniteSummary {
  std::uint64_t tensor = 0;  // index into the union's tensors
  std::uint64_t index = 0;   // of its first non-finite element, flat, within the whole tensor
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
};

struct RankHeader {
  std::uint64_t sequence = 0;  // of the step since bind, from 1: ranks at different steps show
  double loss_scale = 0;       // 0: none. Rank 0's is used by all
  double shard_power_sum = 0;  // of this rank's shards, unweighted
  double local_power_sum = 0;
  std::uint64_t observed = 0;  // 1 if local statistics were taken for this step
  std::uint64_t shard_non_finite = 0;
  std::uint64_t local_non_finite = 0;
  std::uint64_t reserved = 0;
  NonFiniteSummary shard_first;  // valid if the count above is not 0
  NonFiniteSummary local_first;
};

// Sums weighted by 1 / replicas, so that over all ranks each element counts once.
struct GroupSummary {
  double power_sum = 0;
  double max_abs = 0;
  double nan_count = 0;
  double inf_count = 0;
  double zero_count = 0;
};

// Of one tensor, weighted likewise; for p = infinity largest magnitudes.
struct TensorSums {
  double gradient = 0;
  double parameter = 0;
};

// Sums over all groups, in group order.
struct GlobalSums {
  double power_sum = 0;
  double max_abs = 0;  // still loss-scaled
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
};

static_assert(sizeof(NonFiniteSummary) == 32);
static_assert(sizeof(RankHeader) == 128);
static_assert(sizeof(GroupSummary) == 40);

static_assert(sizeof(TensorSums) == 16);

// `tensors` is 0 without adaptive clipping.
GRADWARDEN_HD constexpr std::uint64_t summary_bytes(std::uint64_t groups,
                                                    std::uint64_t tensors = 0) {
  return sizeof(RankHeader) + groups * sizeof(GroupSummary) + tensors * sizeof(TensorSums);
}

// Within a rank's summary, whose start is aligned to 8 bytes.
GRADWARDEN_HD inline GroupSummary* groups_of(RankHeader* header) {
  return reinterpret_cast<GroupSummary*>(header + 1);
}
GRADWARDEN_HD inline const GroupSummary* groups_of(const RankHeader* header) {
  return reinterpret_cast<const GroupSummary*>(header + 1);
}

GRADWARDEN_HD inline TensorSums* tensors_of(RankHeader* header, std::uint64_t groups) {
  return reinterpret_cast<TensorSums*>(groups_of(header) + groups);
}
GRADWARDEN_HD inline const TensorSums* tensors_of(const RankHeader* header, std::uint64_t groups) {
  return reinterpret_cast<const TensorSums*>(groups_of(header) + groups);
}

// The summary of `rank` among those gathered end to end, `stride` bytes each.
GRADWARDEN_HD inline const RankHeader* header_of(const void* gathered, std::uint64_t rank,
                                                 std::uint64_t stride) {
  return reinterpret_cast<const RankHeader*>(static_cast<const unsigned char*>(gathered) +
                                             rank * stride);
}

GRADWARDEN_HD inline void add_part(const GroupSummary& part, GroupSummary& whole) {
  whole.power_sum += part.power_sum;
  whole.max_abs = part.max_abs > whole.max_abs ? part.max_abs : whole.max_abs;
  whole.nan_count += part.nan_count;
  whole.inf_count += part.inf_count;
  whole.zero_count += part.zero_count;
}

// One group over all ranks, in rank order.
GRADWARDEN_HD inline GroupSummary fold_group(const void* gathered, std::uint64_t world_size,
                                             std::uint64_t stride, std::uint64_t group) {
  GroupSummary whole;
  for (std::uint64_t rank = 0; rank < world_size; ++rank) {
    add_part(groups_of(header_of(gathered, rank, stride))[group], whole);
  }
  return whole;
}

// One tensor over all ranks, in rank order. `greatest` for p = infinity.
GRADWARDEN_HD inline TensorSums fold_tensor(const void* gathered, std::uint64_t world_size,
                                            std::uint64_t stride, std::uint64_t groups,
                                            std::uint64_t tensor, bool greatest) {
  TensorSums whole;
  for (std::uint64_t rank = 0; rank < world_size; ++rank) {
    const TensorSums& part = tensors_of(header_of(gathered, rank, stride), groups)[tensor];
    if (!greatest) {
      whole.gradient += part.gradient;
      whole.parameter += part.parameter;
      continue;
    }
    whole.gradient = part.gradient > whole.gradient ? part.gradient : whole.gradient;
    whole.parameter = part.parameter > whole.parameter ? part.parameter : whole.parameter;
  }
  return whole;
}

// Counts of replicas that disagree come out fractional; a non-finite element is never rounded away.
// What rounding alone makes of a whole number (12 times 1/12) stays that number: a true fraction is
// at least 1 / replicas.
GRADWARDEN_HD inline std::uint64_t count_up(double weighted) {
  const double nearest = floor(weighted + 0.5);
  const bool whole = fabs(weighted - nearest) <= 1e-6 + 1e-12 * weighted;
  return static_cast<std::uint64_t>(whole ? nearest : ceil(weighted));
}
GRADWARDEN_HD inline std::uint64_t count_near(double weighted) {
  return static_cast<std::uint64_t>(llround(weighted));
}

GRADWARDEN_HD inline void add_group(const GroupSummary& group, GlobalSums& all) {
  all.power_sum += group.power_sum;
  all.max_abs = group.max_abs > all.max_abs ? group.max_abs : all.max_abs;
  all.nan_count += count_up(group.nan_count);
  all.inf_count += count_up(group.inf_count);
  all.zero_count += count_near(group.zero_count);
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_SUMMARY_H_
