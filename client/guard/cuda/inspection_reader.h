// The host's end of inspections (layout and protocol: kernels/cuda/inspection.h): finds that of a
// step, compares replicas, folds signals, and attaches the results to the step's record.
//
// Used by the thread that drains; none while build() runs. Makes no call of the CUDA runtime.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_READER_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_READER_H_

#include <cstdint>
#include <vector>

#include "client/guard/audit.h"
#include "client/guard/binding.h"
#include "client/guard/cuda/memory.h"
#include "client/guard/other_tensors.h"
#include "gradwarden/step_record.h"
#include "kernels/cuda/inspection.h"
#include "kernels/cuda/record.h"

namespace gradwarden::guard {

class InspectionReader {
 public:
  // Throws Error. `progress` outlives the reading.
  void build(const Binding& binding, const GuardOptions& options, std::size_t world_size,
             const kernels::cuda::Progress* progress);

  // For the kernels.
  kernels::cuda::InspectionRing ring() const;

  // What the inspection of step `sequence` found, if there was one; asked for in the order of
  // steps. The record's spans hold until the next call.
  void attach(std::uint64_t sequence, StepRecord& record) noexcept;

 private:
  enum class Read { kThis, kEarlier, kLater, kOverwritten };

  bool find(std::uint64_t sequence) noexcept;
  Read read(std::uint64_t number, std::uint64_t sequence) noexcept;
  bool all_ranks_are_at(std::uint64_t sequence, std::size_t stride) const noexcept;

  double norm_type_ = 2;
  double tolerance_ = 0;
  std::size_t world_size_ = 1;
  const kernels::cuda::Progress* progress_ = nullptr;
  kernels::cuda::InspectionSizes sizes_;
  std::uint64_t slot_bytes_ = 0;
  std::uint32_t slot_count_ = 1;
  PinnedMemory slots_;
  std::uint64_t next_ = 0;  // delivery to be looked at next
  kernels::cuda::InspectionParts parts_;
  std::vector<std::uint64_t> blocks_;  // of all ranks, of the one found
  std::vector<Region> regions_;
  std::vector<ReplicaMismatch> mismatches_;
  SignalTable signals_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_READER_H_
