// The two ends of an inspection's exchange: completing this rank's block, and handing all ranks'
// blocks to the host (layout and protocol: kernels/cuda/inspection.h).
#ifndef GRADWARDEN_KERNELS_CUDA_INSPECTION_CUH_
#define GRADWARDEN_KERNELS_CUDA_INSPECTION_CUH_

#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/inspection.h"
#include "kernels/cuda/record.cuh"

namespace gradwarden::kernels::cuda {

// In the order of the shards, as the host adds them.
__device__ inline double power_of_region(const SealArguments& a, std::uint64_t region) {
  const bool greatest = std::isinf(a.p);
  double sum = 0;
  for (std::uint32_t i = a.source_first[region]; i < a.source_first[region + 1]; ++i) {
    const Statistics& s = *a.sources[i];
    if (!greatest)
      sum += s.power_sum;
    else if (s.max_abs > sum)
      sum = s.max_abs;
  }
  return sum;
}

// Grid: any size.
__global__ void __launch_bounds__(kBlockThreads) seal_kernel(const SealArguments a) {
  auto* regions = reinterpret_cast<RegionSums*>(a.block + regions_at());
  const std::uint64_t stride = std::uint64_t{gridDim.x} * kBlockThreads;
  for (std::uint64_t r = std::uint64_t{blockIdx.x} * kBlockThreads + threadIdx.x;
       r < a.region_count; r += stride) {
    regions[r].digest = a.digests[r];
    regions[r].power_sum = power_of_region(a, r);
  }
  if (blockIdx.x != 0 || threadIdx.x != 0) return;
  const std::uint64_t sequence = next_sequence(*a.counters, a.count);
  reinterpret_cast<InspectionHeader*>(a.block)->sequence = sequence;
  if (a.progress == nullptr) return;
  a.progress->inspecting = sequence;
  __threadfence_system();  // seen before what follows on the stream is seen to end
}

// One block. The fences: thread 0's first, behind the barrier, covers what all threads wrote; its
// second lets no later delivery be seen to write before this one was told.
__global__ void __launch_bounds__(kBlockThreads, 1) deliver_kernel(const DeliverArguments a) {
  const std::uint64_t number = a.counters->delivered;
  unsigned char* at = a.ring.slots + number % a.ring.slot_count * a.ring.slot_bytes;
  copy_words(a.gathered, at + sizeof(InspectionSlot), a.bytes);
  __syncthreads();
  if (threadIdx.x != 0) return;
  const std::uint64_t sequence = next_sequence(*a.counters, a.count);
  auto& slot = *reinterpret_cast<InspectionSlot*>(at);
  slot.sequence = sequence;
  slot.audit = a.parts.audit ? 1 : 0;
  slot.signals = a.parts.signals ? 1 : 0;
  __threadfence_system();
  a.counters->delivered = number + 1;
  a.progress->delivered = number + 1;
  a.progress->inspected = sequence;
  __threadfence_system();
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_INSPECTION_CUH_
