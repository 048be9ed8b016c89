// What the kernels are launched with. Plain host C++, so that host code needs no nvcc.
//
// Every pointer is to device memory that outlives the launch.
#ifndef GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_
#define GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_

#include <cstdint>

#include "kernels/cuda/plan.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/summary.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/statistics.h"

#ifdef GRADWARDEN_EMULATOR
#include GRADWARDEN_EMULATOR  // names the header that stands in for CUDA
#endif

namespace gradwarden::kernels::cuda {

enum class NormType : std::uint8_t { kTwo, kOne, kInfinity, kOther };

inline NormType norm_type_of(double p) {
  if (std::isinf(p)) return NormType::kInfinity;
  return p == 2.0 ? NormType::kTwo : p == 1.0 ? NormType::kOne : NormType::kOther;
}

// A word of global memory that blocks count in with atomics. The emulator reports any other use.
#ifdef GRADWARDEN_EMULATOR
using GlobalCounter = emulator::Global<unsigned>;
#else
using GlobalCounter = unsigned;
#endif

enum class GradientKind : std::uint8_t { kShards, kLocal };

struct FoldArguments {
  Plan plan;
  const ChunkStatistics* chunks = nullptr;
  Statistics* tensors = nullptr;  // out, one per tensor
  RankHeader* summary = nullptr;  // out, with its groups behind it for kShards
  // Read when the kernel runs, so that a captured graph sees the scale of its replay. Null: none.
  const float* loss_scale = nullptr;
  GlobalCounter* blocks_done = nullptr;  // 0 before the first launch; left at 0
  GradientKind kind = GradientKind::kShards;
};

struct DecideArguments {
  const void* gathered = nullptr;  // the summaries of all ranks, in rank order
  std::uint32_t world_size = 1;
  std::uint32_t group_count = 0;
  double p = 2;
  // In device memory and read at run time: thresholds may change between replays of a graph.
  const GuardPolicy* policy = nullptr;
  const double* value_limit = nullptr;  // null: no clamp
  GuardState* state = nullptr;
  RankHeader* own = nullptr;       // this rank's summary, made ready for the next step
  GroupSummary* groups = nullptr;  // out, one per group: over all ranks, still loss-scaled
  GroupFactor* factors = nullptr;  // out, one per group
  StepResult* result = nullptr;    // out
  bool shadow = false;             // decide and report, change nothing
};

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_ARGUMENTS_H_
