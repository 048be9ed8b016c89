// What the kernels are launched with. Plain host C++, so that host code needs no nvcc.
//
// Every pointer is to device memory that outlives the launch.
#ifndef GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_
#define GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/flight.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/record.h"
#include "kernels/cuda/step.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/group_policy.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

enum class NormType : std::uint8_t { kTwo, kOne, kInfinity, kOther };

inline NormType norm_type_of(double p) {
  if (std::isinf(p)) return NormType::kInfinity;
  return p == 2.0 ? NormType::kTwo : p == 1.0 ? NormType::kOne : NormType::kOther;
}

// A number of a step: by value, fixed when the step is enqueued, or by a pointer to device or
// mapped memory that is read when it runs, so that a captured graph sees the value of its replay.
struct ScalarInput {
  const float* at = nullptr;
  double value = 0;
  bool given = false;
};

// 0 where nothing was given.
GRADWARDEN_HD inline double value_of(const ScalarInput& input) {
  if (input.at != nullptr) return static_cast<double>(*input.at);
  return input.given ? input.value : 0;
}

struct StepInputs {
  const std::int64_t* step_at = nullptr;
  std::uint64_t step = 0;  // used without step_at
  bool count_on = false;   // used without step_at: one more than the step before, if there was one
  ScalarInput loss;
  ScalarInput learning_rate;
  // Thresholds in place of the policy's. 0 turns a rule off.
  const double* max_norm_at = nullptr;
  const double* skip_above_at = nullptr;
  const double* skip_above_rolling_mean_at = nullptr;
};

// Counts the steps of a binding, in device memory. Zeroed at bind.
struct StepCounters {
  std::uint64_t sequence = 0;   // steps decided
  std::uint64_t step = 0;       // the trainer's number of the last of them
  std::uint64_t counted = 0;    // 1: there was one
  std::uint64_t folded = 0;     // folds of shards that ended
  std::uint64_t delivered = 0;  // inspections that the host was given
};

// Of the step that is under way. `count` is the host's count of steps, this one included, or 0
// where it cannot know it: a rank on which a launch failed falls in step again by it.
GRADWARDEN_HD inline std::uint64_t next_sequence(const StepCounters& counters,
                                                 std::uint64_t count) {
  const std::uint64_t next = counters.sequence + 1;
  return next > count ? next : count;
}

// What is folded, and so what of the summary is written: the header, groups and sums of gradients
// for kShards, the header's local part for kLocal, sums of parameters for kParameters; for kOther
// the groups alone.
enum class TensorKind : std::uint8_t { kShards, kLocal, kParameters, kOther };

struct FoldArguments {
  Plan plan;
  const ChunkStatistics* chunks = nullptr;
  Statistics* tensors = nullptr;   // out, one per tensor
  RankHeader* summary = nullptr;   // out; with adaptive clipping, tensors too
  GroupSummary* groups = nullptr;  // out; null: they are not wanted
  double p = 2;
  ScalarInput loss_scale;
  StepCounters* counters = nullptr;
  std::uint64_t count = 0;       // as in next_sequence()
  Progress* progress = nullptr;  // mapped pinned memory; null: not told
  // Blocks count themselves in it, with atomics. 0 before the first launch; left at 0.
  std::uint32_t* blocks_done = nullptr;
  TensorKind kind = TensorKind::kShards;
  FlightRing flight;  // for kShards
};

// Of one tensor of the whole model. The ratio is that of adaptive clipping; 0: not clipped so.
struct TensorPolicy {
  double ratio = 0;
  std::uint32_t group = 0;
};

struct DecideArguments {
  const void* gathered = nullptr;  // the summaries of all ranks, in rank order
  std::uint32_t world_size = 1;
  std::uint32_t rank = 0;
  std::uint32_t group_count = 0;
  double p = 2;
  // In device memory and read at run time.
  const GuardPolicy* policy = nullptr;
  const GroupPolicy* group_policies = nullptr;  // one per group; null: none has one
  // Adaptive clipping, one per tensor of the whole model; null: it is off.
  const TensorPolicy* tensor_policies = nullptr;
  std::uint32_t tensor_count = 0;  // 0 where it is off
  double adaptive_least_norm = 0;
  GuardState* state = nullptr;
  StepCounters* counters = nullptr;
  RankHeader* own = nullptr;       // this rank's summary, made ready for the next step
  GroupSummary* groups = nullptr;  // out, one per group: over all ranks, still loss-scaled
  Factor* factors = nullptr;       // out, one per group; with adaptive clipping one per tensor
  StepResult* result = nullptr;    // out
  StepInputs inputs;
  // For the findings of ranks other than 0.
  Plan shards;
  const Statistics* shard_tensors = nullptr;
  Plan local;
  const Statistics* local_tensors = nullptr;
  RecordRing ring;
  FlightRing flight;
  Progress* progress = nullptr;  // mapped pinned memory; null: not told
  bool shadow = false;           // decide and report, change nothing
};

// Bytes from one rank's summary to the next.
GRADWARDEN_HD inline std::uint64_t summary_stride(const DecideArguments& a) {
  return summary_bytes(a.group_count, a.tensor_count);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_
