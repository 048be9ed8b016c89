// What the device needs to inspect: to compare the replicas that ranks hold of the same elements,
// and to take statistics of lists of tensors beside the gradients. Tables and memory are made at
// bind; seal() and deliver() are for the step path: they throw, wait and allocate nothing.
//
// Used by the trainer's thread. The plans that it is built over outlive it.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>

#include "client/guard/binding.h"
#include "client/guard/cuda/device_plan.h"
#include "client/guard/cuda/memory.h"
#include "kernels/cuda/inspection.h"

namespace gradwarden::guard {

// Of what the options ask for, that which there is.
kernels::cuda::InspectionSizes inspection_sizes(const Binding& binding,
                                                const GuardOptions& options);

class Inspection {
 public:
  using Parts = kernels::cuda::InspectionParts;

  struct Plans {
    const DevicePlan& shards;
    const DevicePlan& parameters;
  };
  // A list beside gradients and parameters.
  struct List {
    std::size_t index = 0;  // in Binding::others
    DevicePlan plan;
  };
  struct Step {
    Parts parts;
    double norm_type = 2;
    std::uint64_t count = 0;  // as in FoldArguments
    kernels::cuda::StepCounters* counters = nullptr;
    kernels::cuda::Progress* progress = nullptr;
  };

  // At bind, first: what there will be to do.
  void choose(const Binding& binding, const GuardOptions& options);
  // Throws Error.
  void build(const Binding& binding, std::size_t world_size, const Plans& plans,
             cudaStream_t stream);

  // All that it is to do at some time, and that which is due in the n-th step, n from 1.
  Parts all_parts() const noexcept { return {sizes_.regions != 0, sizes_.lists != 0}; }
  Parts due(std::uint64_t n) const noexcept;

  const std::deque<List>& lists() const noexcept { return lists_; }
  // Where in this rank's block the fold of list `index` of Binding::others goes.
  kernels::GroupSummary* sums_of_list(const Parts& parts, std::size_t index) const noexcept;

  // After the statistics: digests, and this rank's block.
  cudaError_t seal(const Step& step, cudaStream_t stream) noexcept;
  const void* block() const noexcept { return block_.as<void>(); }
  void* gathered() const noexcept { return gathered_.as<void>(); }
  std::size_t bytes(const Parts& parts) const noexcept {
    return kernels::cuda::block_bytes(sizes_, parts);
  }
  // After the exchange.
  cudaError_t deliver(const Step& step, const kernels::cuda::InspectionRing& ring,
                      cudaStream_t stream) noexcept;

 private:
  // A plan with shards that other ranks hold too.
  struct Digested {
    const DevicePlan* plan = nullptr;  // null: there is none
    DeviceMemory regions;              // by position in the plan
  };

  void build_audit(const Binding& binding, const Plans& plans, cudaStream_t stream);
  cudaError_t digest(cudaStream_t stream) noexcept;

  std::uint32_t audit_every_ = 0;
  std::uint32_t observe_every_ = 0;
  kernels::cuda::InspectionSizes sizes_;
  std::size_t world_size_ = 1;
  std::deque<List> lists_;
  DeviceMemory block_;
  DeviceMemory gathered_;
  DeviceMemory digests_;
  DeviceMemory sources_;
  DeviceMemory source_first_;
  Digested digested_[2];  // gradients, parameters
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_INSPECTION_H_
