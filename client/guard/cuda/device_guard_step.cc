// One step of a DeviceGuard, in the order in which the device runs it.
#include <cuda_runtime_api.h>

#include "client/guard/cuda/device_guard_impl.h"
#include "client/guard/cuda/device_pointers.h"
#include "kernels/cuda/launch.h"

namespace gradwarden {
namespace {

namespace device = kernels::cuda;

device::ScalarInput scalar(const std::optional<double>& value, const float* at) {
  return {at, value.value_or(0), value.has_value()};
}

device::StepInputs inputs_of(const DeviceStepInput& input, bool capturing) {
  device::StepInputs in;
  in.step_at = input.step_at;
  in.step = input.step;
  in.count_on = capturing;
  in.loss = scalar(input.loss, input.loss_at);
  in.learning_rate = scalar(input.learning_rate, input.learning_rate_at);
  in.max_norm_at = input.max_norm_at;
  in.skip_above_at = input.skip_above_at;
  in.skip_above_rolling_mean_at = input.skip_above_rolling_mean_at;
  return in;
}

cudaError_t is_capturing(cudaStream_t stream, bool& capturing) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  const cudaError_t error = cudaStreamIsCapturing(stream, &capture);
  capturing = capture == cudaStreamCaptureStatusActive;
  return error;
}

constexpr char kAskingForCapture[] = "asking whether the stream is being captured";

}  // namespace

cudaError_t DeviceGuard::Impl::read(const guard::DevicePlan& plan, device::TensorKind kind,
                                    kernels::GroupSummary* group_sums, cudaStream_t stream,
                                    const device::ScalarInput& loss_scale,
                                    std::uint64_t count) noexcept {
  const auto statistics =
      device::find_statistics_kernel(device::norm_type_of(options.guard.norm_type));
  const cudaError_t error = device::launch(
      statistics, plan.grids().statistics, device::kBlockThreads, stream, plan.plan().tensors,
      plan.plan().chunks, plan.plan().chunk_count, options.guard.norm_type, plan.chunks());
  if (error != cudaSuccess) return error;
  DeviceState& on_device = *at();
  device::FoldArguments a;
  a.plan = plan.plan();
  a.chunks = plan.chunks();
  a.tensors = plan.tensors();
  a.summary = own();
  a.groups = group_sums;
  a.p = options.guard.norm_type;
  a.loss_scale = loss_scale;
  a.counters = &on_device.counters;
  a.count = count;
  a.progress = delivery.records().progress();
  if (kind == device::TensorKind::kShards) a.flight = delivery.flights().ring();
  a.blocks_done = &on_device.blocks_done[static_cast<unsigned>(kind)];
  a.kind = kind;
  return device::launch(device::find_fold_kernel(), plan.grids().fold, device::kBlockThreads,
                        stream, a);
}

// The lists beside the gradients that this step needs.
cudaError_t DeviceGuard::Impl::read_others(const device::InspectionParts& parts,
                                           cudaStream_t stream) noexcept {
  cudaError_t error = cudaSuccess;
  if (reads_parameters && (clipped_tensors != 0 || parts.any())) {
    kernels::GroupSummary* sums = parts.signals ? inspection.sums_of_list(parts, 0) : nullptr;
    error = read(parameters, device::TensorKind::kParameters, sums, stream);
  }
  if (!parts.signals) return error;
  for (const guard::Inspection::List& list : inspection.lists()) {
    if (error != cudaSuccess) return error;
    error = read(list.plan, device::TensorKind::kOther, inspection.sums_of_list(parts, list.index),
                 stream);
  }
  return error;
}

cudaError_t DeviceGuard::Impl::gather_statistics(const DeviceStepInput& input,
                                                 const device::InspectionParts& parts,
                                                 std::uint64_t count,
                                                 cudaStream_t stream) noexcept {
  if (const cudaError_t error = read_others(parts, stream)) return error;
  return read(shards, device::TensorKind::kShards, kernels::groups_of(own()), stream,
              scalar(input.loss_scale, input.loss_scale_at), count);
}

// The exchange is made even if something failed here or before: the other ranks are waiting. A
// block that was not sealed carries the number of an earlier step, and no rank uses it.
DeviceStatus DeviceGuard::Impl::exchange_inspection(const device::InspectionParts& parts,
                                                    cudaError_t before, std::uint64_t count,
                                                    cudaStream_t stream) noexcept {
  const guard::Inspection::Step step{parts, options.guard.norm_type, count, &at()->counters,
                                     delivery.records().progress()};
  cudaError_t error = before;
  if (error == cudaSuccess) error = inspection.seal(step, stream);
  DeviceStatus exchanged = DeviceStatus::kOk;
  if (ranks.size() > 1) {
    exchanged = ranks.enqueue_all_gather(inspection.block(), inspection.gathered(),
                                         inspection.bytes(parts), stream);
  }
  if (error == cudaSuccess && exchanged == DeviceStatus::kOk) {
    error = inspection.deliver(step, delivery.inspections().ring(), stream);
  }
  if (error != cudaSuccess) return fail(error, "enqueueing the inspection");
  return exchanged;
}

cudaError_t DeviceGuard::Impl::decide_and_act(const device::StepInputs& inputs,
                                              cudaStream_t stream) noexcept {
  DeviceState& on_device = *at();
  device::DecideArguments a;
  a.gathered = gathered();
  a.world_size = static_cast<std::uint32_t>(ranks.size());
  a.rank = static_cast<std::uint32_t>(ranks.rank());
  a.group_count = static_cast<std::uint32_t>(binding.groups.size());
  a.p = options.guard.norm_type;
  a.group_policies = group_policies.as<const kernels::GroupPolicy>();
  a.tensor_policies = tensor_policies.as<const device::TensorPolicy>();
  a.tensor_count = static_cast<std::uint32_t>(clipped_tensors);
  a.adaptive_least_norm = options.guard.adaptive_clip_least_norm;
  a.policy = &on_device.policy;
  a.state = &on_device.state;
  a.counters = &on_device.counters;
  a.own = own();
  a.groups = groups.as<kernels::GroupSummary>();
  a.factors = factors.as<device::Factor>();
  a.result = &on_device.result;
  a.inputs = inputs;
  a.shards = shards.plan();
  a.shard_tensors = shards.tensors();
  a.local = local.plan();
  a.local_tensors = local.tensors();
  a.ring = delivery.records().ring();
  a.flight = delivery.flights().ring();
  a.progress = delivery.records().progress();
  a.shadow = options.guard.shadow;
  const cudaError_t decided =
      device::launch(device::find_decide_kernel(), 1, device::kBlockThreads, stream, a);
  if (decided != cudaSuccess || options.action != DeviceAction::kScaleGradients) return decided;
  return device::launch(device::find_apply_kernel(), shards.grids().apply, device::kBlockThreads,
                        stream, shards.plan().tensors, shards.plan().chunks,
                        shards.plan().chunk_count, factors.as<const device::Factor>(),
                        clipped_tensors != 0, &on_device.result);
}

DeviceStatus DeviceGuard::Impl::step(const DeviceStepInput& input, cudaStream_t stream) noexcept {
  if (!bound) return DeviceStatus::kNotBound;
  // Of a communicator that is gone, before anything is enqueued. A mere stall is none: a rank that
  // left out its exchange would break the order of the others' calls.
  if (const DeviceStatus known = ranks.poll(); known != DeviceStatus::kOk) return known;
  bool capturing = false;
  if (const cudaError_t error = is_capturing(stream, capturing)) {
    return fail(error, kAskingForCapture);
  }
  if (!capturing) ++calls;
  const device::InspectionParts parts =
      capturing ? device::InspectionParts{} : inspection.due(calls);
  const std::uint64_t count = capturing ? 0 : enqueued + 1;
  const cudaError_t gathered_here = gather_statistics(input, parts, count, stream);
  DeviceStatus inspected = DeviceStatus::kOk;
  if (parts.any()) inspected = exchange_inspection(parts, gathered_here, count, stream);
  // Even if that failed: the other ranks are waiting. They see an old summary, and all skip.
  DeviceStatus exchanged = DeviceStatus::kOk;
  if (ranks.size() > 1) {
    exchanged =
        ranks.enqueue_all_gather(own(), gathered_summaries.as<void>(), summary_size, stream);
  }
  if (!capturing && exchanged == DeviceStatus::kOk) {
    ++enqueued;  // as the other ranks count it, whatever becomes of it here
    last_stream = stream;
    // Before the decision is enqueued, whose record it has to meet.
    delivery.annotate(input.step, input.batch_ids);
  }
  if (gathered_here != cudaSuccess) return fail(gathered_here, "enqueueing the statistics");
  if (exchanged != DeviceStatus::kOk) return exchanged;
  if (const cudaError_t error = decide_and_act(inputs_of(input, capturing), stream)) {
    return fail(error, "enqueueing the decision");
  }
  return inspected;
}

// The error stays CUDA's: it is neither read by cudaGetLastError nor cleared here.
DeviceStatus DeviceGuard::Impl::fail(cudaError_t failure, const char* doing) noexcept {
  const std::lock_guard lock(error_mutex);
  error = guard::describe(failure, doing);
  return DeviceStatus::kCudaError;
}

bool DeviceGuard::Impl::stream_is_sick() noexcept {
  if (!last_stream) return false;
  const cudaError_t found = cudaStreamQuery(*last_stream);
  if (found == cudaSuccess || found == cudaErrorNotReady) return false;
  fail(found, "waiting for the decision");
  return true;
}

DeviceStatus DeviceGuard::Impl::update(guard::DevicePlan& plan,
                                       std::span<const guard::Segment> segments,
                                       std::size_t shard_count, std::span<void* const> data,
                                       cudaStream_t stream) noexcept {
  if (!bound) return DeviceStatus::kNotBound;
  if (data.size() != shard_count) return DeviceStatus::kInvalidArgument;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (const cudaError_t error = cudaStreamIsCapturing(stream, &capture)) {
    return fail(error, kAskingForCapture);
  }
  if (capture != cudaStreamCaptureStatusNone) return DeviceStatus::kCapturing;
  if (!guard::all_given(segments, data)) return DeviceStatus::kInvalidArgument;
  const cudaError_t error = plan.update(data, stream);
  if (error == cudaErrorNotReady) return DeviceStatus::kBusy;
  if (error != cudaSuccess) return fail(error, "copying the new addresses");
  return DeviceStatus::kOk;
}

// In a capture always: which replay will be the n-th, nobody knows yet.
DeviceStatus DeviceGuard::Impl::observe_local(cudaStream_t stream) noexcept {
  if (!bound) return DeviceStatus::kNotBound;
  if (local.empty()) return DeviceStatus::kOk;
  if (calls % options.guard.local_every != 0) {
    bool capturing = false;
    if (const cudaError_t error = is_capturing(stream, capturing)) {
      return fail(error, kAskingForCapture);
    }
    if (!capturing) return DeviceStatus::kOk;
  }
  const cudaError_t error = read(local, device::TensorKind::kLocal, nullptr, stream);
  return error == cudaSuccess ? DeviceStatus::kOk : fail(error, "observing local gradients");
}

DeviceStatus DeviceGuard::Impl::inspect(cudaStream_t stream) noexcept {
  if (!bound) return DeviceStatus::kNotBound;
  if (options.guard.audit_every == 0 && options.guard.observe_others_every == 0) {
    return DeviceStatus::kInvalidArgument;
  }
  if (const DeviceStatus known = ranks.poll(); known != DeviceStatus::kOk) return known;
  bool capturing = false;
  if (const cudaError_t error = is_capturing(stream, capturing)) {
    return fail(error, kAskingForCapture);
  }
  if (capturing) return DeviceStatus::kCapturing;
  const device::InspectionParts parts = inspection.all_parts();
  if (!parts.any()) return DeviceStatus::kOk;
  cudaError_t error = read_others(parts, stream);
  // The audit's norms: of the gradients as they are now.
  if (error == cudaSuccess && parts.audit) {
    error = read(shards, device::TensorKind::kOther, nullptr, stream);
  }
  return exchange_inspection(parts, error, 0, stream);
}

}  // namespace gradwarden
