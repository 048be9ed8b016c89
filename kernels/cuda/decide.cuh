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
#include "kernels/cuda/record.cuh"
#include "kernels/cuda/step.h"
#include "kernels/numerics/decision.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

// A GroupSummary without initial values, as shared memory wants it.
struct GroupSums {
  double power_sum;
  double max_abs;
  double nan_count;
  double inf_count;
  double zero_count;
};

// The summaries that the decision rests on: those of all ranks, or, where one of them is of another
// step (the collective failed, was aborted, or the ranks lost step), this rank's own alone.
struct Summaries {
  const void* gathered;
  std::uint32_t world_size;
  bool complete;
  std::uint64_t latest;  // the highest number of all, from which this rank counts on
};

// All threads of the block call it and get the same.
__device__ inline Summaries check_summaries(const DecideArguments& a) {
  GRADWARDEN_SHARED(unsigned, strangers, kBlockThreads);
  GRADWARDEN_SHARED(std::uint64_t, latest, kBlockThreads);
  unsigned found = 0;
  std::uint64_t last = a.own->sequence;
  for (std::uint32_t rank = threadIdx.x; rank < a.world_size; rank += kBlockThreads) {
    const std::uint64_t sequence = header_of(a.gathered, rank, summary_stride(a))->sequence;
    if (sequence != a.own->sequence) ++found;
    last = sequence > last ? sequence : last;
  }
  strangers[threadIdx.x] = found;
  latest[threadIdx.x] = last;
  __syncthreads();
  unsigned all = 0;
  const unsigned used = a.world_size < kBlockThreads ? a.world_size : kBlockThreads;
  for (unsigned i = 0; i < used; ++i) {
    all += strangers[i];
    last = latest[i] > last ? latest[i] : last;
  }
  if (all == 0) return {a.gathered, a.world_size, true, last};
  return {a.own, 1, false, last};
}

// Groups are folded over the ranks by all threads, a tile at a time; thread 0 adds them up in
// order, from shared memory, where each costs it a few cycles. Valid in thread 0.
__device__ inline GlobalSums fold_all(const DecideArguments& a, const Summaries& from) {
  GRADWARDEN_SHARED(GroupSums, tile, kBlockThreads);
  GlobalSums all;
  for (std::uint32_t start = 0; start < a.group_count; start += kBlockThreads) {
    const std::uint32_t group = start + threadIdx.x;
    if (group < a.group_count) {
      const GroupSummary whole =
          fold_group(from.gathered, from.world_size, summary_stride(a), group);
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

// The policy with the thresholds of this step.
__device__ inline GuardPolicy policy_of_step(const DecideArguments& a) {
  GuardPolicy policy = *a.policy;
  const StepInputs& in = a.inputs;
  if (in.max_norm_at != nullptr) policy.max_norm = *in.max_norm_at;
  if (in.skip_above_at != nullptr) policy.skip_above = *in.skip_above_at;
  if (in.skip_above_rolling_mean_at != nullptr) {
    const double multiple = *in.skip_above_rolling_mean_at;
    policy.skip_above_rolling_mean = multiple > 0;
    if (multiple > 0) policy.spike.multiple = multiple;
  }
  return policy;
}

__device__ inline StepVerdict verdict_of(const DecideArguments& a, const StepStatistics& step,
                                         bool complete) {
  if (complete) return decide(policy_of_step(a), *a.state, step);
  StepVerdict verdict;  // no window may learn from what the other ranks do not know
  verdict.decision = Decision::kSkip;
  verdict.reason = Reason::kCollectiveFailed;
  return verdict;
}

// What thread 0 tells the others.
struct WholeVerdict {
  double coefficient;  // clip coefficient of the whole
  double scale;        // by which all are divided; 1 without a loss scale
  double unscale;      // 1 / scale
  unsigned usable;     // 1: groups and tensors apply their own thresholds too
};

// By thread 0. Returns what all groups are multiplied by.
__device__ inline WholeVerdict judge_step(const DecideArguments& a, const Summaries& from,
                                          const GlobalSums& all) {
  StepResult& result = *a.result;
  const double loss_scale = header_of(from.gathered, 0, summary_stride(a))->loss_scale;
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
  const StepVerdict verdict = verdict_of(a, step, from.complete);

  const double coefficient = a.shadow ? 1.0 : verdict.clip_coefficient;
  const bool skip = !a.shadow && verdict.decision == Decision::kSkip;
  result.verdict = verdict;
  result.norm = step.norm;
  result.update = skip ? 0 : 1;
  result.found_inf = skip ? 1.0F : 0.0F;
  result.learning_rate_factor = a.shadow ? 1.0F : static_cast<float>(verdict.learning_rate_factor);
  result.grad_scale = grad_scale_of(scaled ? loss_scale : 1.0, coefficient);
  const bool usable = verdict.decision != Decision::kSkip && !step.non_finite;
  return {verdict.clip_coefficient, scaled ? loss_scale : 1.0, unscale, usable ? 1U : 0U};
}

// By thread 0, after the verdict.
__device__ inline void count_step(const DecideArguments& a, const Summaries& from) {
  const StepInputs& in = a.inputs;
  // A rank that missed a decision catches up with the others, so that one failure costs one step.
  a.counters->sequence = from.latest;
  const bool first = a.counters->counted == 0;
  a.counters->counted = 1;
  if (in.step_at != nullptr)
    a.counters->step = static_cast<std::uint64_t>(*in.step_at);
  else
    a.counters->step = in.count_on && !first ? a.counters->step + 1 : in.step;
}

// How many groups and tensors their own thresholds shrank more than the whole's.
struct Clipped {
  unsigned groups;
  unsigned tensors;
};

__device__ inline double coefficient_of_group(const DecideArguments& a, const WholeVerdict& whole,
                                              std::uint32_t group) {
  if (a.group_policies == nullptr || whole.usable == 0) return whole.coefficient;
  const GroupSummary& sum = a.groups[group];
  const double norm = norm_of(sum.power_sum, sum.max_abs, a.p) * whole.unscale;
  return group_coefficient(a.group_policies[group], norm, whole.coefficient);
}

// Of a tensor that is usable, from the sums of all ranks.
__device__ inline double coefficient_of_tensor(const DecideArguments& a, const Summaries& from,
                                               const WholeVerdict& whole, std::uint32_t tensor) {
  const TensorSums sums = fold_tensor(from.gathered, from.world_size, summary_stride(a),
                                      a.group_count, tensor, std::isinf(a.p));
  return adaptive_coefficient(a.tensor_policies[tensor].ratio, a.adaptive_least_norm,
                              norm_of(sums.gradient, sums.gradient, a.p) * whole.unscale,
                              norm_of(sums.parameter, sums.parameter, a.p));
}

// As on the host, to the bit. In shadow mode the loss scale alone is divided out.
__device__ inline void write_factor(const DecideArguments& a, const WholeVerdict& whole,
                                    double coefficient, std::uint32_t group, Factor& out) {
  Factor factor;
  factor.factor = (a.shadow ? 1.0 : coefficient) / whole.scale;
  factor.parts = split_factor(factor.factor);
  if (a.group_policies != nullptr && !a.shadow) {
    const GroupPolicy& policy = a.group_policies[group];
    factor.limit = whole.usable != 0
                       ? needed_limit(policy, a.groups[group].max_abs * whole.unscale, coefficient)
                       : policy.value_limit;
  }
  out = factor;
}

// By all threads, a group or a tensor each. Returns what this thread found to be clipped.
__device__ inline Clipped write_factors(const DecideArguments& a, const Summaries& from,
                                        const WholeVerdict& whole) {
  Clipped clipped{0, 0};
  const bool by_tensor = a.tensor_policies != nullptr;
#pragma unroll 1
  for (std::uint32_t g = threadIdx.x; g < a.group_count; g += kBlockThreads) {
    const double coefficient = coefficient_of_group(a, whole, g);
    if (coefficient < whole.coefficient) ++clipped.groups;
    if (!by_tensor) write_factor(a, whole, coefficient, g, a.factors[g]);
  }
#pragma unroll 1
  for (std::uint32_t t = threadIdx.x; t < a.tensor_count; t += kBlockThreads) {
    const std::uint32_t group = a.tensor_policies[t].group;
    double coefficient = coefficient_of_group(a, whole, group);
    if (whole.usable != 0) {
      const double own = coefficient_of_tensor(a, from, whole, t);
      if (own < coefficient) {
        ++clipped.tensors;
        coefficient = own;
      }
    }
    write_factor(a, whole, coefficient, group, a.factors[t]);
  }
  return clipped;
}

// Valid in thread 0.
__device__ inline Clipped sum_over_block(const Clipped& value) {
  GRADWARDEN_SHARED(Clipped, values, kBlockThreads);
  values[threadIdx.x] = value;
  __syncthreads();
  Clipped all{0, 0};
  if (threadIdx.x == 0) {
    for (unsigned i = 0; i < kBlockThreads; ++i) {
      const Clipped one = values[i];
      all.groups += one.groups;
      all.tensors += one.tensors;
    }
  }
  return all;
}

// By thread 0, when it is known what was above its own threshold.
__device__ inline void note_clipped(StepResult& result, const Clipped& clipped) {
  result.clipped_groups = clipped.groups;
  result.clipped_tensors = clipped.tensors;
  if (clipped.groups + clipped.tensors == 0 || result.verdict.decision != Decision::kApply) return;
  result.verdict.decision = Decision::kClip;
  if (result.verdict.reason != Reason::kWithinLimits) return;
  result.verdict.reason = clipped.groups != 0 ? Reason::kGroupMaxNorm : Reason::kAdaptiveClip;
}

// One block of kBlockThreads threads.
__global__ void __launch_bounds__(kBlockThreads, 1) decide_kernel(const DecideArguments a) {
  GRADWARDEN_SHARED(WholeVerdict, shared_whole, 1);
  const Summaries from = check_summaries(a);
  const GlobalSums all = fold_all(a, from);
  if (threadIdx.x == 0) {
    shared_whole[0] = judge_step(a, from, all);
    count_step(a, from);
  }
  __syncthreads();
  const Clipped clipped = sum_over_block(write_factors(a, from, shared_whole[0]));
  if (threadIdx.x == 0) {
    note_clipped(*a.result, clipped);
    begin_record(a);
  }
  __syncthreads();
  fill_record(a, from.complete);
  __syncthreads();  // all of the record is written
  if (threadIdx.x == 0) {
    a.own->observed = 0;  // until observed again
    a.own->local_power_sum = 0;
    a.own->local_non_finite = 0;
    end_record(a);
  }
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_DECIDE_CUH_
