// What one rank tells the others in a step, and how the ranks' summaries fold into one result.
//
// Layout of a rank's summary: one RankHeader, then one GroupSummary per group of the union, as
// plain bytes of a size fixed at bind. Host and device write and fold the same bytes by the same
// functions in the same order (ranks, then groups), so both come to the same bits.
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

GRADWARDEN_HD constexpr std::uint64_t summary_bytes(std::uint64_t groups) {
  return sizeof(RankHeader) + groups * sizeof(GroupSummary);
}

// Within a rank's summary, whose start is aligned to 8 bytes.
GRADWARDEN_HD inline GroupSummary* groups_of(RankHeader* header) {
  return reinterpret_cast<GroupSummary*>(header + 1);
}
GRADWARDEN_HD inline const GroupSummary* groups_of(const RankHeader* header) {
  return reinterpret_cast<const GroupSummary*>(header + 1);
}

// The summary of `rank` among those gathered end to end.
GRADWARDEN_HD inline const RankHeader* header_of(const void* gathered, std::uint64_t rank,
                                                 std::uint64_t groups) {
  return reinterpret_cast<const RankHeader*>(static_cast<const unsigned char*>(gathered) +
                                             rank * summary_bytes(groups));
}

// One group over all ranks, in rank order.
GRADWARDEN_HD inline GroupSummary fold_group(const void* gathered, std::uint64_t world_size,
                                             std::uint64_t groups, std::uint64_t group) {
  GroupSummary whole;
  for (std::uint64_t rank = 0; rank < world_size; ++rank) {
    const GroupSummary& part = groups_of(header_of(gathered, rank, groups))[group];
    whole.power_sum += part.power_sum;
    whole.max_abs = part.max_abs > whole.max_abs ? part.max_abs : whole.max_abs;
    whole.nan_count += part.nan_count;
    whole.inf_count += part.inf_count;
    whole.zero_count += part.zero_count;
  }
  return whole;
}

// Counts of replicas that disagree come out fractional; a non-finite element is never rounded away.
GRADWARDEN_HD inline std::uint64_t count_up(double weighted) {
  return static_cast<std::uint64_t>(ceil(weighted));
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
