// What one rank tells the others in a step, in device memory: one RankHeader, then one GroupSummary
// per group of the union, as plain bytes of a size fixed at bind. The bytes are those that the
// guard of host memory exchanges, so that both kinds of rank could meet in one collective.
#ifndef GRADWARDEN_KERNELS_CUDA_SUMMARY_H_
#define GRADWARDEN_KERNELS_CUDA_SUMMARY_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels::cuda {

struct NonFiniteSummary {
  std::uint64_t tensor = 0;  // id
  std::uint64_t index = 0;   // flat, within the whole tensor
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
};

struct RankHeader {
  double loss_scale = 0;       // 0: none. Rank 0's is used by all
  double shard_power_sum = 0;  // of this rank's shards, unweighted
  double local_power_sum = 0;
  std::uint64_t observed = 0;  // 1 if local statistics were taken for this step
  std::uint64_t shard_non_finite = 0;
  std::uint64_t local_non_finite = 0;
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

static_assert(sizeof(NonFiniteSummary) == 4 * 8);
static_assert(sizeof(RankHeader) == 6 * 8 + 2 * sizeof(NonFiniteSummary));
static_assert(sizeof(GroupSummary) == 5 * 8);

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

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_SUMMARY_H_
