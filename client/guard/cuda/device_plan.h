// One list of gradients in device memory that is read in one pass: its tables on the device, and
// what the kernels write about it.
//
// build() allocates, copies and waits; update() is for the step path. Used by one thread.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_PLAN_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_PLAN_H_

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/cuda/grids.h"
#include "client/guard/cuda/memory.h"
#include "kernels/cuda/plan.h"
#include "kernels/cuda/plan_tables.h"

namespace gradwarden::guard {

class DevicePlan {
 public:
  DevicePlan() = default;
  ~DevicePlan();
  DevicePlan(const DevicePlan&) = delete;
  DevicePlan& operator=(const DevicePlan&) = delete;

  struct Sizes {
    std::size_t groups = 0;
    std::size_t whole_tensors = 0;  // of the model, for sums by tensor; 0: they are not wanted
    bool moves = false;             // update() will be called
  };

  // Throws Error.
  void build(std::span<const Segment> segments, const Sizes& sizes, cudaStream_t stream);
  bool empty() const { return plan_.tensor_count == 0; }

  // Of a plan that moves. New addresses, by position in the list given to bind. Enqueues one copy
  // of the entries from the first that changed to the last; none if nothing changed. Never waits:
  // cudaErrorNotReady when kCopies copies are still under way. What fails is tried again by the
  // next call.
  cudaError_t update(std::span<void* const> data, cudaStream_t stream) noexcept;

  const kernels::cuda::Plan& plan() const { return plan_; }
  const Grids& grids() const { return grids_; }
  kernels::cuda::ChunkStatistics* chunks() const {
    return chunks_.as<kernels::cuda::ChunkStatistics>();
  }
  kernels::Statistics* tensors() const { return tensors_.as<kernels::Statistics>(); }

 private:
  // Copies of the table in pinned memory that may wait for their turn on the stream.
  static constexpr std::size_t kCopies = 8;
  struct Copy {
    PinnedMemory entries;
    cudaEvent_t read = nullptr;  // recorded behind the copy to the device
  };
  struct Origin {
    std::uint32_t shard;
    std::uint64_t byte_offset;
  };

  void upload(cudaStream_t stream);
  void make_copies();

  kernels::cuda::PlanTables tables_;  // the host's view, addresses included
  std::vector<Origin> origins_;       // by tensor of the table
  kernels::cuda::Plan plan_;
  Grids grids_;
  DeviceMemory entries_;
  DeviceMemory chunk_entries_;
  DeviceMemory group_tensors_;
  DeviceMemory group_first_;
  DeviceMemory whole_parts_;
  DeviceMemory whole_first_;
  DeviceMemory maps_;  // null: none is needed
  DeviceMemory chunks_;
  DeviceMemory tensors_;
  std::array<Copy, kCopies> copies_;
  std::size_t next_copy_ = 0;
  std::size_t first_stale_ = SIZE_MAX;  // entries that the device does not have yet
  std::size_t last_stale_ = 0;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_PLAN_H_
