// Writes the record of a step (record.h) from the decision kernel's one block.
//
// Why it is whole when the host sees it: thread 0 stores `begin` and fences before the barrier
// after which any thread writes the rest; all of that is written before the next barrier, after
// which thread 0 fences again (a fence covers what a barrier ordered before it) and stores `end`.
// Both fences reach the whole system, since the ring is the host's memory.
#ifndef GRADWARDEN_KERNELS_CUDA_RECORD_CUH_
#define GRADWARDEN_KERNELS_CUDA_RECORD_CUH_

#include <cmath>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/record.h"
#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

__device__ inline RecordHeader& slot_of(const DecideArguments& a) {
  const std::uint64_t slot = a.own->sequence % a.ring.slot_count;
  return *reinterpret_cast<RecordHeader*>(a.ring.slots + slot * a.ring.slot_bytes);
}

// By the whole block, a word per thread.
__device__ inline void copy_words(const void* from, void* to, std::uint64_t bytes) {
  const auto* source = static_cast<const std::uint64_t*>(from);
  auto* target = static_cast<std::uint64_t*>(to);
  for (std::uint64_t i = threadIdx.x; i < bytes / 8; i += kBlockThreads) target[i] = source[i];
}

// By thread 0, when the verdict is in a.result.
__device__ inline void begin_record(const DecideArguments& a) {
  if (a.ring.slots == nullptr) return;
  RecordHeader& record = slot_of(a);
  record.begin = a.own->sequence;
  __threadfence_system();
  record.step = a.counters->step;
  record.loss = value_of(a.inputs.loss);
  record.has_loss = a.inputs.loss.given || a.inputs.loss.at != nullptr ? 1 : 0;
  record.learning_rate = value_of(a.inputs.learning_rate);
  record.has_learning_rate =
      a.inputs.learning_rate.given || a.inputs.learning_rate.at != nullptr ? 1 : 0;
  record.finding_count = 0;
  record.result = *a.result;
}

// The headers of all ranks; where the collective failed, this rank's own alone and zeros.
__device__ inline void copy_headers(const DecideArguments& a, bool complete, RankHeader* out) {
  constexpr std::uint64_t kWords = sizeof(RankHeader) / 8;
  auto* target = reinterpret_cast<std::uint64_t*>(out);
  for (std::uint64_t i = threadIdx.x; i < a.world_size * kWords; i += kBlockThreads) {
    const std::uint64_t rank = i / kWords;
    const auto* source = reinterpret_cast<const std::uint64_t*>(
        complete ? header_of(a.gathered, rank, summary_stride(a)) : a.own);
    target[i] = complete || rank == a.rank ? source[i % kWords] : 0;
  }
}

__device__ inline RecordFinding finding_of(const Plan& plan, std::uint32_t t, const Statistics& s,
                                           bool local) {
  const TensorEntry& tensor = plan.tensors[t];
  RecordFinding finding;
  finding.where.tensor = tensor.id;
  finding.where.index = index_in_whole(plan.maps, tensor, s.first_non_finite);
  finding.where.nan_count = s.nan_count;
  finding.where.inf_count = s.inf_count;
  finding.local = local ? 1 : 0;
  return finding;
}

// Appends this rank's tensors that hold something non-finite, in order, from `count` on. All
// threads look, a tile at a time; thread 0 writes, and its count alone is right. Rare: only where
// the header says that there is one.
__device__ inline std::uint64_t append_findings(const Plan& plan, const Statistics* tensors,
                                                bool local, std::uint64_t count,
                                                RecordFinding* out) {
  GRADWARDEN_SHARED(unsigned, flagged, kBlockThreads);
  for (std::uint32_t start = 0; start < plan.tensor_count; start += kBlockThreads) {
    const std::uint32_t t = start + threadIdx.x;
    flagged[threadIdx.x] = t < plan.tensor_count && tensors[t].non_finite() ? 1 : 0;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (std::uint32_t i = 0; i < kBlockThreads && count < kMaxRecordFindings; ++i) {
        if (flagged[i] == 0) continue;
        out[count++] = finding_of(plan, start + i, tensors[start + i], local);
      }
    }
    __syncthreads();  // the next tile overwrites this one
  }
  return count;
}

// By the whole block.
__device__ inline void fill_record(const DecideArguments& a, bool complete) {
  if (a.ring.slots == nullptr) return;
  RecordHeader& record = slot_of(a);
  if (a.ring.full) {
    auto* groups = reinterpret_cast<GroupSummary*>(&record + 1);
    copy_words(a.groups, groups, a.group_count * sizeof(GroupSummary));
    copy_headers(a, complete, reinterpret_cast<RankHeader*>(groups + a.group_count));
    return;
  }
  auto* header = reinterpret_cast<RankHeader*>(&record + 1);
  copy_words(a.own, header, sizeof(RankHeader));
  auto* findings = reinterpret_cast<RecordFinding*>(header + 1);
  std::uint64_t count = 0;
  const bool observed = a.own->observed != 0;
  if (observed && a.own->local_non_finite != 0)
    count = append_findings(a.local, a.local_tensors, true, count, findings);
  if (a.own->shard_non_finite != 0)
    count = append_findings(a.shards, a.shard_tensors, false, count, findings);
  if (threadIdx.x == 0) record.finding_count = count;
}

// By thread 0. `folds` last: who finds it there, finds the rest.
__device__ inline void write_flight_header(const DecideArguments& a) {
  if (a.flight.slots == nullptr) return;
  const std::uint64_t folds = a.counters->folded;
  const StepResult& result = *a.result;
  FlightHeader& header = *flight_slot(a.flight, folds - 1);
  header.step = a.counters->step;
  header.norm = result.nan_count + result.inf_count != 0 ? static_cast<double>(NAN) : result.norm;
  header.decision = static_cast<std::uint32_t>(result.verdict.decision);
  header.reason = static_cast<std::uint32_t>(result.verdict.reason);
  __threadfence_system();
  header.folds = folds;
}

// By thread 0, after the barrier behind fill_record.
__device__ inline void end_record(const DecideArguments& a) {
  write_flight_header(a);
  __threadfence_system();
  if (a.ring.slots != nullptr) slot_of(a).end = a.own->sequence;
  if (a.progress != nullptr) a.progress->decided = a.own->sequence;
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_RECORD_CUH_
