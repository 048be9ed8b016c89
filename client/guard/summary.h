// What one rank tells the others in a step, as plain bytes of a size fixed at bind, and its fold
// over all ranks.
//
// Layout of a rank's summary: one RankHeader, then one GroupSummary per group of the union.
#ifndef GRADWARDEN_CLIENT_GUARD_SUMMARY_H_
#define GRADWARDEN_CLIENT_GUARD_SUMMARY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "gradwarden/step_record.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::guard {

inline constexpr std::size_t kMaxNonFinite = 64;  // listed per step; the counts cover all

struct NonFiniteSummary {
  std::uint64_t tensor = 0;
  std::uint64_t index = 0;
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

static_assert(sizeof(RankHeader) == 6 * sizeof(double) + 2 * sizeof(NonFiniteSummary));

inline std::size_t summary_bytes(std::size_t groups) {
  return sizeof(RankHeader) + groups * sizeof(GroupSummary);
}

// Statistics of all ranks of one step. Vectors are sized at bind and reused.
struct GlobalStatistics {
  void resize(std::size_t group_count, std::size_t world_size);

  double norm = 0;  // unscaled, of the finite elements
  double max_abs = 0;
  double loss_scale = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  bool observed = false;
  std::vector<double> group_norms;
  std::vector<double> group_max_abs;
  std::vector<std::uint64_t> group_nan_counts;
  std::vector<std::uint64_t> group_inf_counts;
  std::vector<std::uint64_t> group_zero_counts;
  std::vector<double> shard_norms;
  std::vector<double> local_norms;
  std::vector<std::uint64_t> local_non_finite_counts;
  std::vector<NonFiniteTensor> non_finite;  // capacity kMaxNonFinite; births first
  std::vector<GroupSummary> fold;           // working memory
};

// Writes this rank's shards into `header` and `groups` (cleared first).
void summarize_shards(std::span<const Segment> segments,
                      std::span<const kernels::Statistics> statistics, RankHeader& header,
                      std::span<GroupSummary> groups);

// Adds the local gradients to `header`.
void summarize_local(std::span<const Segment> segments,
                     std::span<const kernels::Statistics> statistics, RankHeader& header);

// Folds the summaries of all ranks in rank order: the same bytes give the same bits on every rank.
void fold_ranks(const unsigned char* gathered, std::size_t world_size, GlobalStatistics& global);

// Appends what this rank itself holds that is not finite, tensor by tensor.
void append_own_non_finite(std::span<const Segment> segments,
                           std::span<const kernels::Statistics> statistics, std::uint32_t rank,
                           bool local, std::vector<NonFiniteTensor>& out);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_SUMMARY_H_
