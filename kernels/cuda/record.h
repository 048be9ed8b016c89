// The record of a step, which the decision leaves in a ring in mapped pinned memory, where a thread
// of the host polls for it: no copy, no event, no call of the CUDA runtime.
//
// Slot `sequence % slot_count` holds, end to end: a RecordHeader; of rank 0 the groups over all
// ranks (GroupSummary) and the headers of all ranks (RankHeader), of the other ranks their own
// RankHeader and up to kMaxRecordFindings findings. The device writes `begin`, then the rest, then
// `end`, with system-wide fences between: who reads `end`, copies the slot, and then finds `begin`
// unchanged has a whole record. The device never waits for the reader; what is read too late is
// overwritten.
#ifndef GRADWARDEN_KERNELS_CUDA_RECORD_H_
#define GRADWARDEN_KERNELS_CUDA_RECORD_H_

#include <cstdint>

#include "kernels/cuda/step.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

inline constexpr std::uint32_t kMaxRecordFindings = 64;

// A tensor of this rank that holds something non-finite.
struct RecordFinding {
  NonFiniteSummary where;
  std::uint64_t local = 0;  // 1: seen before the reduction
};

struct RecordHeader {
  std::uint64_t begin = 0;  // sequence of the step whose record is being written
  std::uint64_t end = 0;    // sequence of the step whose record is complete
  std::uint64_t step = 0;   // the trainer's
  double loss = 0;
  double learning_rate = 0;
  std::uint32_t has_loss = 0;
  std::uint32_t has_learning_rate = 0;
  std::uint64_t finding_count = 0;
  StepResult result;
};
static_assert(sizeof(RecordHeader) % 8 == 0);

// Where a rank's stream stands, for a watch on collectives that never end.
struct Progress {
  std::uint64_t started = 0;  // sequence of the last step whose summary was ready to be sent
  std::uint64_t decided = 0;  // sequence of the last step that was decided
  std::uint64_t folded = 0;   // folds of shards that ended since bind
  // Sequences of the last step for which an inspection was ready to be exchanged, and was
  // delivered.
  std::uint64_t inspecting = 0;
  std::uint64_t inspected = 0;
  std::uint64_t delivered = 0;  // inspections since bind
};

struct RecordRing {
  unsigned char* slots = nullptr;  // null: no records
  std::uint64_t slot_bytes = 0;    // a multiple of 8
  std::uint32_t slot_count = 0;
  bool full = false;  // rank 0's form
};

// Bytes of a slot.
GRADWARDEN_HD constexpr std::uint64_t record_bytes(bool full, std::uint64_t groups,
                                                   std::uint64_t world_size) {
  return sizeof(RecordHeader) +
         (full ? groups * sizeof(GroupSummary) + world_size * sizeof(RankHeader)
               : sizeof(RankHeader) + kMaxRecordFindings * sizeof(RecordFinding));
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_RECORD_H_
