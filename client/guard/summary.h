// This rank's summary of a step (its layout: kernels/numerics/summary.h) and the statistics of all
// ranks, as the record of the step wants them.
#ifndef GRADWARDEN_CLIENT_GUARD_SUMMARY_H_
#define GRADWARDEN_CLIENT_GUARD_SUMMARY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "gradwarden/step_record.h"
#include "kernels/numerics/noise_scale.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::guard {

inline constexpr std::size_t kMaxNonFinite = 64;  // listed per step; the counts cover all

using kernels::GroupSummary;
using kernels::NonFiniteSummary;
using kernels::RankHeader;

// Statistics of all ranks of one step. Vectors are sized at bind and reused.
struct GlobalStatistics {
  void resize(std::size_t group_count, std::size_t world_size);

  double norm_type = 2;  // p
  double norm = 0;       // unscaled, of the finite elements
  double max_abs = 0;
  double loss_scale = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  bool observed = false;
  bool local_is_whole = false;  // set at bind: local norms are of the whole model
  kernels::NoiseScale noise_scale;
  std::vector<double> group_norms;
  std::vector<double> group_max_abs;
  std::vector<std::uint64_t> group_nan_counts;
  std::vector<std::uint64_t> group_inf_counts;
  std::vector<std::uint64_t> group_zero_counts;
  std::vector<double> shard_norms;
  std::vector<double> local_norms;
  std::vector<std::uint64_t> local_non_finite_counts;
  std::vector<NonFiniteTensor> non_finite;  // capacity kMaxNonFinite; births first
  std::vector<GroupSummary> fold;           // over all ranks, still loss-scaled
};

// The headers of all ranks, `stride` bytes apart.
struct RankHeaders {
  const void* first = nullptr;
  std::size_t stride = 0;
  std::size_t count = 0;

  const RankHeader& operator[](std::size_t rank) const {
    return *reinterpret_cast<const RankHeader*>(static_cast<const unsigned char*>(first) +
                                                rank * stride);
  }
};

// Writes this rank's shards into `header` and `groups` (cleared first). For p = infinity a sum of
// powers is a largest magnitude.
void summarize_shards(std::span<const Segment> segments,
                      std::span<const kernels::Statistics> statistics, double norm_type,
                      RankHeader& header, std::span<GroupSummary> groups);

// Adds the statistics of segments, weighted, to their groups.
void add_to_groups(std::span<const Segment> segments,
                   std::span<const kernels::Statistics> statistics, std::span<GroupSummary> groups);

// Adds the local gradients to `header`.
void summarize_local(std::span<const Segment> segments,
                     std::span<const kernels::Statistics> statistics, double norm_type,
                     RankHeader& header);

// Folds the summaries of all ranks, gathered end to end, `stride` bytes each, in rank order: the
// same bytes give the same bits on every rank.
void fold_ranks(const void* gathered, std::size_t stride, std::size_t world_size,
                GlobalStatistics& global);

// The rest of `global` from its `fold` and the headers.
void finish(const RankHeaders& headers, GlobalStatistics& global);

// Points the record at the statistics by group and by rank, which have to outlive it.
void describe_groups_and_ranks(const GlobalStatistics& global, StepRecord& record);

// False where a rank sent the summary of another step.
bool at_same_step(const RankHeaders& headers);

// Appends what this rank itself holds that is not finite, tensor by tensor, but for what is listed
// already.
void append_own_non_finite(std::span<const Segment> segments,
                           std::span<const kernels::Statistics> statistics, std::uint32_t rank,
                           bool local, std::vector<NonFiniteTensor>& out);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_SUMMARY_H_
