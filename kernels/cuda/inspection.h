// What an inspection (an audit of replicas, statistics of tensors beside the gradients) exchanges
// between the ranks and hands to the host, and what its kernels are launched with.
//
// A rank's block: an InspectionHeader, then, of what the inspection is due to do, one RegionSums
// per audited region and one GroupSummary per list and group. The blocks of all ranks, gathered end
// to end, go into a slot of a ring in mapped pinned memory, behind an InspectionSlot. Deliveries
// are counted from 0 within the binding; number n lies in slot n % slot_count and is whole when
// Progress::delivered is above n, and untouched while fewer than slot_count more have been told.
#ifndef GRADWARDEN_KERNELS_CUDA_INSPECTION_H_
#define GRADWARDEN_KERNELS_CUDA_INSPECTION_H_

#include <cstdint>

#include "kernels/cuda/arguments.h"
#include "kernels/numerics/digest.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels::cuda {

// The same on all ranks.
struct InspectionParts {
  bool audit = false;
  bool signals = false;
  GRADWARDEN_HD bool any() const { return audit || signals; }
};

struct InspectionSizes {
  std::uint64_t regions = 0;
  std::uint64_t lists = 0;
  std::uint64_t groups = 0;
};

struct InspectionHeader {
  std::uint64_t sequence = 0;  // of the step that it belongs to; another one: this rank failed
};

struct InspectionSlot {
  std::uint64_t sequence = 0;
  std::uint32_t audit = 0;
  std::uint32_t signals = 0;
};

// Within a rank's block.
GRADWARDEN_HD constexpr std::uint64_t regions_at() { return sizeof(InspectionHeader); }
GRADWARDEN_HD constexpr std::uint64_t signals_at(const InspectionSizes& sizes,
                                                 const InspectionParts& parts) {
  return regions_at() + (parts.audit ? sizes.regions * sizeof(RegionSums) : 0);
}
GRADWARDEN_HD constexpr std::uint64_t block_bytes(const InspectionSizes& sizes,
                                                  const InspectionParts& parts) {
  return signals_at(sizes, parts) +
         (parts.signals ? sizes.lists * sizes.groups * sizeof(GroupSummary) : 0);
}

struct InspectionRing {
  unsigned char* slots = nullptr;
  std::uint64_t slot_bytes = 0;
  std::uint32_t slot_count = 1;
};

// Digests of the shards of one plan, added to those of their regions.
struct DigestArguments {
  static constexpr std::uint32_t kNoRegion = 0xffffffffU;

  Plan plan;
  const std::uint32_t* regions = nullptr;  // by position in the plan
  std::uint64_t* digests = nullptr;        // by region; zero before the first launch
};

// Completes this rank's block: nothing may have failed before.
struct SealArguments {
  unsigned char* block = nullptr;
  std::uint64_t region_count = 0;  // 0 where no audit is due
  const std::uint64_t* digests = nullptr;
  // The statistics of the shards of each region: of region r those of
  // [source_first[r], source_first[r + 1]).
  const Statistics* const* sources = nullptr;
  const std::uint32_t* source_first = nullptr;
  double p = 2;
  const StepCounters* counters = nullptr;
  std::uint64_t count = 0;  // as in FoldArguments
  Progress* progress = nullptr;
};

struct DeliverArguments {
  const void* gathered = nullptr;
  std::uint64_t bytes = 0;  // of all ranks
  InspectionParts parts;
  InspectionRing ring;
  StepCounters* counters = nullptr;
  std::uint64_t count = 0;
  Progress* progress = nullptr;
};

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_INSPECTION_H_
