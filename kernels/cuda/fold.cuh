// From chunks to tensors, and from tensors to groups and this rank's summary, in one launch.
//
// Each tensor is folded by one thread or one block; the block that finishes last folds the tensors
// into groups. A second launch would do the same, but launches per step are few by contract, and an
// empty one costs as much as this. Which block is last differs from run to run; what it computes
// does not, so results are the same bits every time.
#ifndef GRADWARDEN_KERNELS_CUDA_FOLD_CUH_
#define GRADWARDEN_KERNELS_CUDA_FOLD_CUH_

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/block_fold.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

using TensorPartial = Partial<std::uint64_t>;

// A tensor with more chunks than this is folded by a block, a smaller one by one thread: most
// tensors of a model are small, and a block for each would leave ten thousand of them waiting in
// turns.
inline constexpr std::uint64_t kThreadChunks = 4;

// Blocks that must fit on a multiprocessor at once, which limits registers: with a third one the
// compiler spills on sm_120.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
inline constexpr unsigned kFoldBlocksPerProcessor = 2;
#else
inline constexpr unsigned kFoldBlocksPerProcessor = 3;
#endif

// Every stride-th chunk of the tensor, from `first` on.
__device__ inline TensorPartial gather_chunks(const TensorEntry& tensor,
                                              const ChunkStatistics* chunks, unsigned first,
                                              unsigned stride) {
  TensorPartial s = TensorPartial::nothing();
  const std::uint64_t size = chunk_elements(tensor.dtype);
  for (std::uint64_t c = first; c < tensor.chunk_count; c += stride) {
    const ChunkStatistics& chunk = chunks[tensor.first_chunk + c];
    const bool finite = chunk.first_non_finite == ChunkStatistics::kNoElement;
    s.add({chunk.power_sum, chunk.max_abs, chunk.nan_count, chunk.inf_count, chunk.zero_count,
           finite ? kNoIndex : c * size + chunk.first_non_finite});
  }
  return s;
}

__device__ inline void store_flight(const FoldArguments& a, std::uint32_t t,
                                    const TensorPartial& s) {
  if (t >= a.flight.tensors) return;
  const std::uint64_t non_finite = s.nan_count + s.inf_count;
  FlightSums sums;
  sums.power_sum = std::isinf(a.p) ? s.max_abs : s.power_sum;
  sums.max_abs = static_cast<float>(s.max_abs);
  sums.non_finite_count =
      non_finite > 0xffffffffU ? 0xffffffffU : static_cast<std::uint32_t>(non_finite);
  sums.zero_count = s.zero_count;
  reinterpret_cast<FlightSums*>(flight_slot(a.flight, a.counters->folded) + 1)[t] = sums;
}

__device__ inline void store_tensor(const FoldArguments& a, std::uint32_t t,
                                    const TensorPartial& s) {
  Statistics& out = a.tensors[t];
  out.power_sum = s.power_sum;
  out.max_abs = s.max_abs;
  out.nan_count = s.nan_count;
  out.inf_count = s.inf_count;
  out.zero_count = s.zero_count;
  out.first_non_finite = s.first_non_finite;
  store_flight(a, t, s);
}

__device__ inline void fold_small_tensors(const FoldArguments& a) {
  const std::uint32_t stride = gridDim.x * kBlockThreads;
  for (std::uint32_t t = blockIdx.x * kBlockThreads + threadIdx.x; t < a.plan.tensor_count;
       t += stride) {
    const TensorEntry& tensor = a.plan.tensors[t];
    if (tensor.chunk_count > kThreadChunks) continue;
    store_tensor(a, t, gather_chunks(tensor, a.chunks, 0, 1));
  }
}

__device__ inline void fold_large_tensors(const FoldArguments& a) {
  for (std::uint32_t t = blockIdx.x; t < a.plan.tensor_count; t += gridDim.x) {
    const TensorEntry& tensor = a.plan.tensors[t];
    if (tensor.chunk_count <= kThreadChunks) continue;  // the whole block alike
    TensorPartial s = gather_chunks(tensor, a.chunks, threadIdx.x, kBlockThreads);
    fold_block(s);
    if (threadIdx.x == 0) store_tensor(a, t, s);
  }
}

// True in all threads of the block that comes here last, which then sees what the others wrote.
// The fences: the barrier orders the results of all threads of a block before thread 0's fence,
// which, before its atomic, makes them visible to whoever sees the count (fences are cumulative).
// The last block's thread 0 fences again after its atomic, so that no later read is older than the
// count; the second barrier hands that on to the block's other threads, and the results are read by
// ordinary loads, never by the read-only path.
__device__ inline bool last_block_here(std::uint32_t* blocks_done) {
  GRADWARDEN_SHARED(unsigned, is_last, 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    is_last[0] = atomicAdd(global_word(blocks_done), 1U) + 1 == gridDim.x ? 1U : 0U;
    __threadfence();
  }
  __syncthreads();
  return is_last[0] != 0;
}

struct GroupPartial {
  double power_sum;
  double max_abs;
  double nan_count;
  double inf_count;
  double zero_count;

  __device__ static GroupPartial nothing() { return {0, 0, 0, 0, 0}; }

  __device__ void add(const GroupPartial& o) {
    power_sum += o.power_sum;
    max_abs = o.max_abs > max_abs ? o.max_abs : max_abs;
    nan_count += o.nan_count;
    inf_count += o.inf_count;
    zero_count += o.zero_count;
  }

  __device__ GroupPartial from_above(unsigned width) const {
    return {__shfl_down_sync(kFullMask, power_sum, width),
            __shfl_down_sync(kFullMask, max_abs, width),
            __shfl_down_sync(kFullMask, nan_count, width),
            __shfl_down_sync(kFullMask, inf_count, width),
            __shfl_down_sync(kFullMask, zero_count, width)};
  }
};

// Every stride-th tensor of the group, from `first` on.
__device__ inline GroupPartial gather_group(const FoldArguments& a, std::uint32_t group,
                                            std::uint32_t first, std::uint32_t stride) {
  GroupPartial sum = GroupPartial::nothing();
  const std::uint32_t end = a.plan.group_first[group + 1];
  for (std::uint32_t i = a.plan.group_first[group] + first; i < end; i += stride) {
    const std::uint32_t t = a.plan.group_tensors[i];
    const Statistics& s = a.tensors[t];
    const double weight = a.plan.tensors[t].weight;
    sum.add({s.power_sum * weight, s.max_abs, static_cast<double>(s.nan_count) * weight,
             static_cast<double>(s.inf_count) * weight,
             static_cast<double>(s.zero_count) * weight});
  }
  return sum;
}

__device__ inline void store_group(const GroupPartial& sum, GroupSummary& out) {
  out.power_sum = sum.power_sum;
  out.max_abs = sum.max_abs;
  out.nan_count = sum.nan_count;
  out.inf_count = sum.inf_count;
  out.zero_count = sum.zero_count;
}

__device__ inline bool is_large_group(const Plan& plan, std::uint32_t group) {
  return plan.group_first[group + 1] - plan.group_first[group] > kWarpGroup;
}

__device__ inline void fold_groups(const FoldArguments& a) {
  GroupSummary* out = a.groups;
  if (a.plan.largest_group > kWarpGroup) {
    for (std::uint32_t group = 0; group < a.plan.group_count; ++group) {
      if (!is_large_group(a.plan, group)) continue;  // the whole block alike
      GroupPartial sum = gather_group(a, group, threadIdx.x, kBlockThreads);
      fold_block(sum);
      if (threadIdx.x == 0) store_group(sum, out[group]);
    }
  }
  constexpr unsigned kWarps = kBlockThreads / kWarpSize;
  for (std::uint32_t group = threadIdx.x / kWarpSize; group < a.plan.group_count; group += kWarps) {
    if (is_large_group(a.plan, group)) continue;  // the whole warp alike
    GroupPartial sum = gather_group(a, group, threadIdx.x % kWarpSize, kWarpSize);
    fold_warp(sum);
    if (threadIdx.x % kWarpSize == 0) store_group(sum, out[group]);
  }
}

// Sums by tensor of the whole model, each by one thread over this rank's parts of it, in order.
__device__ inline void fold_whole_tensors(const FoldArguments& a) {
  TensorSums* out = tensors_of(a.summary, a.plan.group_count);
  const bool greatest = std::isinf(a.p);
#pragma unroll 1  // few registers are left
  for (std::uint32_t t = threadIdx.x; t < a.plan.whole_count; t += kBlockThreads) {
    double sum = 0;
#pragma unroll 1
    for (std::uint32_t i = a.plan.whole_first[t]; i < a.plan.whole_first[t + 1]; ++i) {
      const std::uint32_t part = a.plan.whole_parts[i];
      const Statistics& s = a.tensors[part];
      if (!greatest)
        sum += s.power_sum * a.plan.tensors[part].weight;
      else if (s.max_abs > sum)
        sum = s.max_abs;
    }
    if (a.kind == TensorKind::kParameters)
      out[t].parameter = sum;
    else
      out[t].gradient = sum;
  }
}

// This rank's own totals. first_non_finite stands for a tensor here: the first that has one.
__device__ inline void fold_header(const FoldArguments& a) {
  TensorPartial all = TensorPartial::nothing();
  for (std::uint32_t t = threadIdx.x; t < a.plan.tensor_count; t += kBlockThreads) {
    const Statistics& s = a.tensors[t];
    all.add({s.power_sum, s.max_abs, s.nan_count, s.inf_count, s.zero_count,
             s.non_finite() ? t : TensorPartial::kNone});
  }
  fold_block(all);
  if (threadIdx.x != 0) return;
  const bool shards = a.kind == TensorKind::kShards;
  RankHeader& header = *a.summary;
  if (all.first_non_finite != TensorPartial::kNone) {
    const TensorEntry& tensor = a.plan.tensors[all.first_non_finite];
    const Statistics& s = a.tensors[all.first_non_finite];
    NonFiniteSummary& first = shards ? header.shard_first : header.local_first;
    first.tensor = tensor.id;
    first.index = index_in_whole(a.plan.maps, tensor, s.first_non_finite);
    first.nan_count = s.nan_count;
    first.inf_count = s.inf_count;
  }
  const std::uint64_t non_finite = all.nan_count + all.inf_count;
  // For p = infinity the largest magnitude stands for the sum of powers.
  const double power = std::isinf(a.p) ? all.max_abs : all.power_sum;
  if (shards) {
    header.sequence = next_sequence(*a.counters, a.count);
    header.loss_scale = value_of(a.loss_scale);
    header.shard_power_sum = power;
    header.shard_non_finite = non_finite;
  } else {
    header.local_power_sum = power;
    header.local_non_finite = non_finite;
    header.observed = 1;  // until the decision of this step has read it
  }
}

// By thread 0 of the last block. Counts the fold, and tells the host that this step's summary is
// ready to be sent. The fences: what this launch wrote for the host, by whatever block, is seen
// before the count is; and what follows on the stream must not be seen to end, nor the next fold to
// write, before this is seen.
__device__ inline void tell_folded(const FoldArguments& a) {
  const std::uint64_t folded = a.counters->folded + 1;
  a.counters->folded = folded;
  if (a.progress == nullptr) return;
  __threadfence_system();
  a.progress->folded = folded;
  a.progress->started = next_sequence(*a.counters, a.count);
  __threadfence_system();
}

// Grid: any size; blocks beyond tensor_count only count themselves. kBlockThreads threads.
__global__ void __launch_bounds__(kBlockThreads, kFoldBlocksPerProcessor)
    fold_kernel(const FoldArguments a) {
  fold_small_tensors(a);
  fold_large_tensors(a);
  if (!last_block_here(a.blocks_done)) return;  // the whole block alike
  if (a.groups != nullptr) fold_groups(a);
  if (a.plan.whole_count != 0 && a.kind != TensorKind::kOther) fold_whole_tensors(a);
  if (a.kind == TensorKind::kShards || a.kind == TensorKind::kLocal) fold_header(a);
  if (threadIdx.x != 0) return;
  if (a.kind == TensorKind::kShards) tell_folded(a);
  atomicExch(global_word(a.blocks_done), 0U);  // for the next step's launch
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_FOLD_CUH_
