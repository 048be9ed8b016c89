// What a DeviceGuard is made of. One step: enqueue statistics, exchange, decision and action
// (device_guard_step.cc); everything is sized and allocated at bind (device_guard.cc).
//
// The trainer's thread alone, but for `delivery`, which the sink's thread drains, and `error`.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_GUARD_IMPL_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_GUARD_IMPL_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/cuda/device_plan.h"
#include "client/guard/cuda/inspection.h"
#include "client/guard/cuda/memory.h"
#include "client/guard/cuda/poll_thread.h"
#include "client/guard/cuda/step_delivery.h"
#include "gradwarden/device_guard.h"
#include "kernels/cuda/kernels.h"
#include "kernels/numerics/group_policy.h"

namespace gradwarden {

struct DeviceGuard::Impl {
  // What lives on the device for as long as the guard does. The window survives binding again.
  struct DeviceState {
    kernels::GuardPolicy policy;
    kernels::GuardState state;
    kernels::cuda::StepCounters counters;
    kernels::cuda::StepResult result;
    std::uint32_t blocks_done[4] = {};  // of the folds, by TensorKind
  };

  Impl(const DeviceGuardOptions& o, DeviceCollective& r, StepSink* s)
      : options(o), ranks(r), sink(s), delivery(r, options.guard) {}
  ~Impl() { stop_delivery(); }

  // device_guard.cc: bind.
  void bind(const Bindings& bindings, cudaStream_t stream);
  void allocate(cudaStream_t stream);
  void upload_policies(cudaStream_t stream);
  void reset_state(cudaStream_t stream);
  std::span<const guard::Segment> parameter_segments() const noexcept;  // those that are read
  kernels::GuardState read_state(cudaStream_t stream) const;
  void wait_for(cudaStream_t stream) const;
  void start_delivery();
  void stop_delivery();

  // device_guard_step.cc: the step path. Nothing here throws, waits or allocates.
  DeviceStatus step(const DeviceStepInput& input, cudaStream_t stream) noexcept;
  DeviceStatus observe_local(cudaStream_t stream) noexcept;
  DeviceStatus update(guard::DevicePlan& plan, std::span<const guard::Segment> segments,
                      std::size_t shard_count, std::span<void* const> data,
                      cudaStream_t stream) noexcept;
  DeviceStatus inspect(cudaStream_t stream) noexcept;
  cudaError_t gather_statistics(const DeviceStepInput& input,
                                const kernels::cuda::InspectionParts& parts, std::uint64_t count,
                                cudaStream_t stream) noexcept;
  cudaError_t read_others(const kernels::cuda::InspectionParts& parts,
                          cudaStream_t stream) noexcept;
  // Statistics of one list, folded. Of `loss_scale` and `count` a step's shards alone know.
  cudaError_t read(const guard::DevicePlan& plan, kernels::cuda::TensorKind kind,
                   kernels::GroupSummary* group_sums, cudaStream_t stream,
                   const kernels::cuda::ScalarInput& loss_scale = {},
                   std::uint64_t count = 0) noexcept;
  DeviceStatus exchange_inspection(const kernels::cuda::InspectionParts& parts, cudaError_t before,
                                   std::uint64_t count, cudaStream_t stream) noexcept;
  cudaError_t decide_and_act(const kernels::cuda::StepInputs& inputs, cudaStream_t stream) noexcept;
  DeviceStatus fail(cudaError_t error, const char* doing) noexcept;
  bool stream_is_sick() noexcept;

  DeviceState* at() const { return state.as<DeviceState>(); }
  kernels::RankHeader* own() const { return own_summary.as<kernels::RankHeader>(); }
  const void* gathered() const {
    return ranks.size() > 1 ? gathered_summaries.as<void>() : own_summary.as<void>();
  }

  const DeviceGuardOptions options;
  DeviceCollective& ranks;
  StepSink* const sink;
  guard::Binding binding;
  bool bound = false;

  guard::DeviceMemory state;
  std::optional<kernels::GuardState> restored;  // before the first bind
  guard::DeviceMemory own_summary;
  guard::DeviceMemory gathered_summaries;
  guard::DeviceMemory groups;
  guard::DeviceMemory factors;
  guard::DeviceMemory group_policies;   // null: no group has one
  guard::DeviceMemory tensor_policies;  // null: adaptive clipping is off
  guard::DevicePlan shards;
  guard::DevicePlan local;
  guard::DevicePlan parameters;
  bool reads_parameters = false;
  std::size_t parameter_count = 0;  // in the list given to bind
  guard::Inspection inspection;
  std::size_t clipped_tensors = 0;  // those of the model with adaptive clipping, else 0
  std::size_t summary_size = 0;

  guard::StepDelivery delivery;
  guard::PollThread poll_thread;
  bool attached = false;

  std::uint64_t enqueued = 0;  // sequence of the last step that the host knows of
  std::uint64_t calls = 0;     // of step() since bind, outside of captures: the same on all ranks
  std::optional<cudaStream_t> last_stream;  // of a step; null is the default stream
  mutable std::mutex error_mutex;           // taken on failures only
  std::string error;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_DEVICE_GUARD_IMPL_H_
