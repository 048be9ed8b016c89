#include "gradwarden/device_guard.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "client/guard/binding.h"
#include "client/guard/cuda/device_plan.h"
#include "client/guard/cuda/device_pointers.h"
#include "client/guard/cuda/grids.h"
#include "client/guard/cuda/memory.h"
#include "client/guard/cuda/poll_thread.h"
#include "client/guard/cuda/step_delivery.h"
#include "client/guard/group_rules.h"
#include "client/guard/options.h"
#include "client/guard/run_shape.h"
#include "client/guard/state_bytes.h"
#include "gradwarden/error.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace gradwarden {
namespace {

namespace device = kernels::cuda;
using Clock = std::chrono::steady_clock;

// What lives on the device for as long as the guard does. The window survives binding again.
struct DeviceState {
  kernels::GuardPolicy policy;
  kernels::GuardState state;
  device::StepCounters counters;
  device::StepResult result;
  std::uint32_t blocks_done[2] = {};  // of the folds of shards and of local gradients
};

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

void check(const DeviceGuardOptions& options) {
  guard::check(options.guard);
  const bool per_group = options.guard.value_limit > 0 || !options.guard.group_rules.empty();
  if (per_group && options.action == DeviceAction::kOptimizerScales) {
    throw Error(
        "guard options: value_limit and group_rules scale each group by itself, which grad_scale "
        "cannot say; use DeviceAction::kScaleGradients");
  }
}

// What went wrong in it, or nothing.
template <typename Body>
std::string attempt(Body body) {
  try {
    body();
  } catch (const std::exception& failure) {
    return failure.what();
  }
  return {};
}

}  // namespace

struct DeviceGuard::Impl {
  Impl(const DeviceGuardOptions& o, DeviceCollective& r, StepSink* s)
      : options(o), ranks(r), sink(s), delivery(r, o.guard) {}
  ~Impl() { stop_delivery(); }

  void bind(std::span<const TensorShard> shard_list, std::span<const TensorShard> local_list,
            cudaStream_t stream);
  void allocate(cudaStream_t stream);
  void upload_group_policies(cudaStream_t stream);
  void reset_state(cudaStream_t stream);
  kernels::GuardState read_state(cudaStream_t stream) const;
  void wait_for(cudaStream_t stream) const;
  void start_delivery();
  void stop_delivery();

  DeviceStatus step(const DeviceStepInput& input, cudaStream_t stream) noexcept;
  cudaError_t gather_statistics(const DeviceStepInput& input, std::uint64_t count,
                                cudaStream_t stream) noexcept;
  cudaError_t fold(const guard::DevicePlan& plan, device::GradientKind kind, unsigned grid,
                   const device::ScalarInput& loss_scale, std::uint64_t count,
                   cudaStream_t stream) noexcept;
  cudaError_t statistics(const guard::DevicePlan& plan, unsigned grid,
                         cudaStream_t stream) noexcept;
  cudaError_t decide_and_act(const device::StepInputs& inputs, cudaStream_t stream) noexcept;
  DeviceStatus fail(cudaError_t error, const char* doing) noexcept;
  bool stream_is_sick() noexcept;

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
  guard::DeviceMemory group_policies;  // null: no group has one
  guard::DevicePlan shards;
  guard::DevicePlan local;
  guard::Grids grids;
  guard::Grids local_grids;
  std::size_t summary_size = 0;

  guard::StepDelivery delivery;
  guard::PollThread poll_thread;
  bool attached = false;

  std::uint64_t enqueued = 0;               // sequence of the last step that the host knows of
  std::optional<cudaStream_t> last_stream;  // of a step; null is the default stream
  mutable std::mutex error_mutex;           // taken on failures only
  std::string error;
};

// ---- bind --------------------------------------------------------------------------------------

void DeviceGuard::Impl::bind(std::span<const TensorShard> shard_list,
                             std::span<const TensorShard> local_list, cudaStream_t stream) {
  bound = false;
  std::string problem = guard::check_device_pointers(shard_list, "shards");
  if (problem.empty()) problem = guard::check_device_pointers(local_list, "local");
  const std::string settings = guard::settings_text(options.guard) + ", action " +
                               std::to_string(static_cast<unsigned>(options.action));
  binding = guard::make_binding({shard_list, local_list, {}, {}}, settings, ranks, problem);
  problem = attempt([&] {
    // What runs still uses what is replaced here, and its records are to be handed on.
    if (last_stream) wait_for(*last_stream);
    wait_for(stream);
    stop_delivery();
    allocate(stream);
  });
  guard::agree(problem, ranks);
  problem = attempt([&] {
    if (sink != nullptr) sink->begin(guard::run_shape(binding, options.guard, ranks));
    start_delivery();
  });
  guard::agree(problem, ranks);
  bound = true;
}

void DeviceGuard::Impl::allocate(cudaStream_t stream) {
  const std::size_t group_count = binding.groups.size();
  const auto world = static_cast<std::size_t>(ranks.size());
  summary_size = kernels::summary_bytes(group_count);
  own_summary = guard::DeviceMemory(summary_size);
  guard::require(cudaMemsetAsync(own_summary.as<void>(), 0, summary_size, stream),
                 "clearing the summary");
  const std::size_t gathered_size = world > 1 ? summary_size * world : 0;
  gathered_summaries = guard::DeviceMemory(gathered_size);
  if (gathered_size != 0) {
    guard::require(cudaMemsetAsync(gathered_summaries.as<void>(), 0, gathered_size, stream),
                   "clearing the gathered summaries");
  }
  groups = guard::DeviceMemory(group_count * sizeof(kernels::GroupSummary));
  factors = guard::DeviceMemory(group_count * sizeof(device::GroupFactor));
  upload_group_policies(stream);
  reset_state(stream);
  shards.build(binding.shards, group_count, stream);
  local.build(binding.local, group_count, stream);
  grids = guard::grids_for(shards.plan());
  local_grids = guard::grids_for(local.plan());
  delivery.build(binding);
  enqueued = 0;
}

void DeviceGuard::Impl::upload_group_policies(cudaStream_t stream) {
  const auto policies = guard::group_policies(options.guard, binding.groups);
  const bool any = std::any_of(policies.begin(), policies.end(), [](const auto& policy) {
    return policy.max_norm > 0 || policy.value_limit > 0;
  });
  group_policies = guard::DeviceMemory(any ? policies.size() * sizeof(policies[0]) : 0);
  if (!any) return;
  guard::require(
      cudaMemcpyAsync(group_policies.as<void>(), policies.data(),
                      policies.size() * sizeof(policies[0]), cudaMemcpyHostToDevice, stream),
      "copying the group rules to the device");
  guard::require(cudaStreamSynchronize(stream), "copying the group rules to the device");
}

// The window is kept; everything that counts within a binding starts again.
void DeviceGuard::Impl::reset_state(cudaStream_t stream) {
  DeviceState fresh;
  fresh.policy = guard::policy_of(options.guard);
  if (state.as<void>() != nullptr) fresh.state = read_state(stream);
  if (restored) fresh.state = *restored;
  guard::DeviceMemory made(state.as<void>() == nullptr ? sizeof fresh : 0);
  DeviceState* at =
      made.as<DeviceState>() != nullptr ? made.as<DeviceState>() : state.as<DeviceState>();
  guard::require(cudaMemcpyAsync(at, &fresh, sizeof fresh, cudaMemcpyHostToDevice, stream),
                 "writing the guard's state");
  guard::require(cudaStreamSynchronize(stream), "writing the guard's state");
  if (made.as<void>() != nullptr) state = std::move(made);
  restored.reset();
}

kernels::GuardState DeviceGuard::Impl::read_state(cudaStream_t stream) const {
  kernels::GuardState copy;
  guard::require(cudaMemcpyAsync(&copy, &state.as<DeviceState>()->state, sizeof copy,
                                 cudaMemcpyDeviceToHost, stream),
                 "reading the guard's state");
  guard::require(cudaStreamSynchronize(stream), "reading the guard's state");
  return copy;
}

void DeviceGuard::Impl::wait_for(cudaStream_t stream) const {
  guard::require(cudaStreamSynchronize(stream), "waiting for the steps before bind()");
}

void DeviceGuard::Impl::start_delivery() {
  attached = sink != nullptr && sink->attach(delivery);
  if (!attached && (sink != nullptr || ranks.size() > 1)) poll_thread.start(delivery, sink);
}

// Afterwards everything that ended has been handed on.
void DeviceGuard::Impl::stop_delivery() {
  if (!attached && !poll_thread.running()) return;
  if (attached) sink->detach(delivery);
  attached = false;
  poll_thread.stop();
  if (sink != nullptr) delivery.drain(*sink);
}

// ---- step --------------------------------------------------------------------------------------

cudaError_t DeviceGuard::Impl::statistics(const guard::DevicePlan& plan, unsigned grid,
                                          cudaStream_t stream) noexcept {
  return device::launch(
      device::find_statistics_kernel(device::norm_type_of(options.guard.norm_type)), grid,
      device::kBlockThreads, stream, plan.plan().tensors, plan.plan().chunks,
      plan.plan().chunk_count, options.guard.norm_type, plan.chunks());
}

cudaError_t DeviceGuard::Impl::fold(const guard::DevicePlan& plan, device::GradientKind kind,
                                    unsigned grid, const device::ScalarInput& loss_scale,
                                    std::uint64_t count, cudaStream_t stream) noexcept {
  DeviceState* at = state.as<DeviceState>();
  device::FoldArguments a;
  a.plan = plan.plan();
  a.chunks = plan.chunks();
  a.tensors = plan.tensors();
  a.summary = own();
  a.p = options.guard.norm_type;
  a.loss_scale = loss_scale;
  a.counters = &at->counters;
  a.count = count;
  a.progress = delivery.records().progress();
  a.blocks_done = &at->blocks_done[kind == device::GradientKind::kShards ? 0 : 1];
  a.kind = kind;
  return device::launch(device::find_fold_kernel(), grid, device::kBlockThreads, stream, a);
}

cudaError_t DeviceGuard::Impl::gather_statistics(const DeviceStepInput& input, std::uint64_t count,
                                                 cudaStream_t stream) noexcept {
  if (const cudaError_t error = statistics(shards, grids.statistics, stream)) return error;
  return fold(shards, device::GradientKind::kShards, grids.fold,
              scalar(input.loss_scale, input.loss_scale_at), count, stream);
}

cudaError_t DeviceGuard::Impl::decide_and_act(const device::StepInputs& inputs,
                                              cudaStream_t stream) noexcept {
  DeviceState* at = state.as<DeviceState>();
  device::DecideArguments a;
  a.gathered = gathered();
  a.world_size = static_cast<std::uint32_t>(ranks.size());
  a.rank = static_cast<std::uint32_t>(ranks.rank());
  a.group_count = static_cast<std::uint32_t>(binding.groups.size());
  a.p = options.guard.norm_type;
  a.group_policies = group_policies.as<const kernels::GroupPolicy>();
  a.policy = &at->policy;
  a.state = &at->state;
  a.counters = &at->counters;
  a.own = own();
  a.groups = groups.as<kernels::GroupSummary>();
  a.factors = factors.as<device::GroupFactor>();
  a.result = &at->result;
  a.inputs = inputs;
  a.shards = shards.plan();
  a.shard_tensors = shards.tensors();
  a.local = local.plan();
  a.local_tensors = local.tensors();
  a.ring = delivery.records().ring();
  a.progress = delivery.records().progress();
  a.shadow = options.guard.shadow;
  const cudaError_t decided =
      device::launch(device::find_decide_kernel(), 1, device::kBlockThreads, stream, a);
  if (decided != cudaSuccess || options.action != DeviceAction::kScaleGradients) return decided;
  return device::launch(device::find_apply_kernel(), grids.apply, device::kBlockThreads, stream,
                        shards.plan().tensors, shards.plan().chunks, shards.plan().chunk_count,
                        factors.as<const device::GroupFactor>(), &at->result);
}

DeviceStatus DeviceGuard::Impl::step(const DeviceStepInput& input, cudaStream_t stream) noexcept {
  if (!bound) return DeviceStatus::kNotBound;
  // Of a communicator that is gone, before anything is enqueued. A mere stall is none: a rank that
  // left out its exchange would break the order of the others' calls.
  if (const DeviceStatus known = ranks.poll(); known != DeviceStatus::kOk) return known;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (const cudaError_t error = cudaStreamIsCapturing(stream, &capture)) {
    return fail(error, "asking whether the stream is being captured");
  }
  const bool capturing = capture == cudaStreamCaptureStatusActive;
  const cudaError_t gathered_here = gather_statistics(input, capturing ? 0 : enqueued + 1, stream);
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
  return DeviceStatus::kOk;
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

// ---- the public class --------------------------------------------------------------------------

DeviceGuard::DeviceGuard(const DeviceGuardOptions& options, DeviceCollective& ranks,
                         StepSink* sink) {
  check(options);
  impl_ = std::make_unique<Impl>(options, ranks, sink);
}

DeviceGuard::DeviceGuard(const DeviceGuardOptions& options, StepSink* sink) {
  static SingleDevice single;
  check(options);
  impl_ = std::make_unique<Impl>(options, single, sink);
}

DeviceGuard::~DeviceGuard() = default;

void DeviceGuard::bind(std::span<const TensorShard> shards, std::span<const TensorShard> local,
                       cudaStream_t stream) {
  impl_->bind(shards, local, stream);
}

DeviceStatus DeviceGuard::update(std::span<void* const> data, cudaStream_t stream) noexcept {
  Impl& impl = *impl_;
  if (!impl.bound) return DeviceStatus::kNotBound;
  if (data.size() != impl.binding.shard_count) return DeviceStatus::kInvalidArgument;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  if (const cudaError_t error = cudaStreamIsCapturing(stream, &capture)) {
    return impl.fail(error, "asking whether the stream is being captured");
  }
  if (capture != cudaStreamCaptureStatusNone) return DeviceStatus::kCapturing;
  if (!guard::all_given(impl.binding.shards, data)) return DeviceStatus::kInvalidArgument;
  const cudaError_t error = impl.shards.update(data, stream);
  if (error == cudaErrorNotReady) return DeviceStatus::kBusy;
  if (error != cudaSuccess) return impl.fail(error, "copying the new addresses");
  return DeviceStatus::kOk;
}

DeviceStatus DeviceGuard::observe_local(cudaStream_t stream) noexcept {
  Impl& impl = *impl_;
  if (!impl.bound) return DeviceStatus::kNotBound;
  if (impl.local.empty()) return DeviceStatus::kOk;
  cudaError_t error = impl.statistics(impl.local, impl.local_grids.statistics, stream);
  if (error == cudaSuccess) {
    error =
        impl.fold(impl.local, device::GradientKind::kLocal, impl.local_grids.fold, {}, 0, stream);
  }
  return error == cudaSuccess ? DeviceStatus::kOk : impl.fail(error, "observing local gradients");
}

DeviceStatus DeviceGuard::step(const DeviceStepInput& input, cudaStream_t stream) noexcept {
  return impl_->step(input, stream);
}

DeviceStatus DeviceGuard::wait(StepOutcome* outcome, std::chrono::milliseconds timeout) noexcept {
  Impl& impl = *impl_;
  if (!impl.bound || impl.enqueued == 0) return DeviceStatus::kNotBound;
  constexpr int kSpins = 2000;
  constexpr std::chrono::milliseconds kAskCudaEvery{100};
  const Clock::time_point start = Clock::now();
  Clock::time_point ask = start + kAskCudaEvery;
  std::uint64_t words[guard::RecordReader::kHeaderWords];
  for (int turn = 0;; ++turn) {
    using Read = guard::RecordReader::Read;
    // More steps ran than we were told of: whose decision is wanted cannot be said.
    if (impl.delivery.records().decided() > impl.enqueued) return DeviceStatus::kInvalidArgument;
    const Read read = impl.delivery.records().read(impl.enqueued, words);
    if (read == Read::kDone) {
      const auto& header = *reinterpret_cast<const device::RecordHeader*>(words);
      *outcome = guard::outcome_of(header.result, impl.options.guard.shadow);
      return DeviceStatus::kOk;
    }
    if (turn < kSpins) continue;
    const Clock::time_point now = Clock::now();
    if (now >= ask) {
      if (impl.stream_is_sick()) return DeviceStatus::kCudaError;
      ask = now + kAskCudaEvery;
    }
    if (now - start >= timeout) return DeviceStatus::kTimeout;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void DeviceGuard::expect_replay(std::uint64_t step, cudaStream_t stream,
                                std::span<const std::string_view> batch_ids) noexcept {
  ++impl_->enqueued;
  impl_->last_stream = stream;
  impl_->delivery.annotate(step, batch_ids);
}

const float* DeviceGuard::found_inf() const noexcept {
  return impl_->bound ? &impl_->state.as<DeviceState>()->result.found_inf : nullptr;
}

const float* DeviceGuard::grad_scale() const noexcept {
  return impl_->bound ? &impl_->state.as<DeviceState>()->result.grad_scale : nullptr;
}

const float* DeviceGuard::learning_rate_factor() const noexcept {
  return impl_->bound ? &impl_->state.as<DeviceState>()->result.learning_rate_factor : nullptr;
}

std::vector<std::byte> DeviceGuard::save_state(cudaStream_t stream) const {
  const kernels::GuardPolicy policy = guard::policy_of(impl_->options.guard);
  if (impl_->state.as<void>() == nullptr) {
    return guard::save(impl_->restored.value_or(kernels::GuardState{}), policy);
  }
  return guard::save(impl_->read_state(stream), policy);
}

void DeviceGuard::restore_state(std::span<const std::byte> bytes, cudaStream_t stream) {
  const kernels::GuardState state = guard::restore(bytes, guard::policy_of(impl_->options.guard));
  if (impl_->state.as<void>() == nullptr) {
    impl_->restored = state;
    return;
  }
  guard::require(cudaMemcpyAsync(&impl_->state.as<DeviceState>()->state, &state, sizeof state,
                                 cudaMemcpyHostToDevice, stream),
                 "writing the guard's state");
  guard::require(cudaStreamSynchronize(stream), "writing the guard's state");
}

DeviceStatus DeviceGuard::health() const noexcept { return impl_->delivery.health(); }

std::uint64_t DeviceGuard::lost_records() const noexcept { return impl_->delivery.lost_records(); }

std::string DeviceGuard::last_error() const {
  const std::lock_guard lock(impl_->error_mutex);
  const std::string exchange = impl_->ranks.last_error();
  if (impl_->error.empty() || exchange.empty()) return impl_->error + exchange;
  return impl_->error + "; " + exchange;
}

}  // namespace gradwarden
