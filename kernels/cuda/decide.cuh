// The decision of a step, on the device: all ranks' summaries in, verdict and factors out.
//
// One block. Every rank runs it over the same gathered bytes and its own copy of the same state, in
// the same order of additions (ranks, then groups) as the guard of host memory, and so comes to the
// same bits. The rule itself is kernels/numerics/decision.h, the one function that the host calls.
#ifndef GRADWARDEN_KERNELS_CUDA_DECIDE_CUH_
#define GRADWARDEN_KERNELS_CUDA_DECIDE_CUH_

#include <cmath>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/step.h"
#include "kernels/cuda/summary.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::cuda {

// A GroupSummary without initial values, as shared memory wants it.
struct GroupSums {
  double power_sum;
  double max_abs;
  double nan_count;
  double inf_count;
  double zero_count;
};

struct FactorBits {
  double factor;
  float first;
  float second;
};

// Sums over all groups, in group order.
struct GlobalSums {
  double power_sum = 0;
  double max_abs = 0;  // still loss-scaled
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
};

__device__ inline GroupSummary fold_ranks(const DecideArguments& a, std::uint32_t group) {
  GroupSummary whole;
  for (std::uint32_t rank = 0; rank < a.world_size; ++rank) {
    const GroupSummary& part = groups_of(header_of(a.gathered, rank, a.group_count))[group];
    whole.power_sum += part.power_sum;
    whole.max_abs = part.max_abs > whole.max_abs ? part.max_abs : whole.max_abs;
    whole.nan_count += part.nan_count;
    whole.inf_count += part.inf_count;
    whole.zero_count += part.zero_count;
  }
  return whole;
}

// Counts of replicas that disagree come out fractional; a non-finite element is never rounded away.
__device__ inline std::uint64_t count_up(double weighted) {
  return static_cast<std::uint64_t>(ceil(weighted));
}

__device__ inline void add_group(const GroupSummary& group, GlobalSums& all) {
  all.power_sum += group.power_sum;
  all.max_abs = group.max_abs > all.max_abs ? group.max_abs : all.max_abs;
  all.nan_count += count_up(group.nan_count);
  all.inf_count += count_up(group.inf_count);
  all.zero_count += static_cast<std::uint64_t>(llround(group.zero_count));
}

// Groups are folded over the ranks by all threads, a tile at a time; thread 0 adds them up in
// order, from shared memory, where each costs it a few cycles. Valid in thread 0.
__device__ inline GlobalSums fold_all(const DecideArguments& a) {
  GRADWARDEN_SHARED(GroupSums, tile, kBlockThreads);
  GlobalSums all;
  for (std::uint32_t start = 0; start < a.group_count; start += kBlockThreads) {
    const std::uint32_t group = start + threadIdx.x;
    if (group < a.group_count) {
      const GroupSummary whole = fold_ranks(a, group);
      a.groups[group] = whole;
      tile[threadIdx.x] = {whole.power_sum, whole.max_abs, whole.nan_count, whole.inf_count,
                           whole.zero_count};
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      for (std::uint32_t i = 0; i < kBlockThreads && start + i < a.group_count; ++i) {
        const GroupSums sums = tile[i];
        add_group({sums.power_sum, sums.max_abs, sums.nan_count, sums.inf_count, sums.zero_count},
                  all);
      }
    }
    __syncthreads();  // the next tile overwrites this one
  }
  return all;
}

// Loss scale / coefficient as a float. Where it leaves float it saturates: dividing by infinity
// would turn gradients into zeros, which nothing may.
__device__ inline float grad_scale_of(double scale, double coefficient) {
  constexpr double kLargest = 3.4028234663852886e38;
  const double exact = scale / coefficient;
  return static_cast<float>(exact > kLargest ? kLargest : exact);
}

// By thread 0. Returns the factor of every group.
__device__ inline double judge_step(const DecideArguments& a, const GlobalSums& all) {
  StepResult& result = *a.result;
  const double loss_scale = header_of(a.gathered, 0, a.group_count)->loss_scale;
  const bool scaled = loss_scale > 0;
  const double unscale = scaled ? 1.0 / loss_scale : 1.0;
  // What is known already goes out first: fewer registers to keep across a call of pow.
  result.max_abs = all.max_abs * unscale;
  result.loss_scale = scaled ? loss_scale : 0;
  result.nan_count = all.nan_count;
  result.inf_count = all.inf_count;
  result.zero_count = all.zero_count;
  StepStatistics step;
  step.norm = norm_of(all.power_sum, all.max_abs, a.p) * unscale;
  step.non_finite = all.nan_count + all.inf_count != 0;
  step.dynamic_loss_scale = scaled;
  const StepVerdict verdict = decide(*a.policy, *a.state, step);

  const double coefficient = a.shadow ? 1.0 : verdict.clip_coefficient;
  const bool skip = !a.shadow && verdict.decision == Decision::kSkip;
  result.verdict = verdict;
  result.norm = step.norm;
  result.value_limit = a.value_limit != nullptr && !a.shadow ? *a.value_limit : 0;
  result.update = skip ? 0 : 1;
  result.found_inf = skip ? 1.0F : 0.0F;
  result.grad_scale = grad_scale_of(scaled ? loss_scale : 1.0, coefficient);
  return scaled ? coefficient / loss_scale : coefficient;
}

// One block of kBlockThreads threads.
__global__ void __launch_bounds__(kBlockThreads) decide_kernel(const DecideArguments a) {
  GRADWARDEN_SHARED(FactorBits, shared_factor, 1);
  const GlobalSums all = fold_all(a);
  if (threadIdx.x == 0) {
    const double factor = judge_step(a, all);
    const Float32Factor parts = split_factor(factor);
    shared_factor[0] = {factor, parts.first, parts.second};
    a.own->observed = 0;
  }
  __syncthreads();
  const FactorBits bits = shared_factor[0];
  GroupFactor factor;
  factor.factor = bits.factor;
  factor.parts = {bits.first, bits.second};
  for (std::uint32_t g = threadIdx.x; g < a.group_count; g += kBlockThreads) a.factors[g] = factor;
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_DECIDE_CUH_
