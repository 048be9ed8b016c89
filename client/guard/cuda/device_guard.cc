#include "gradwarden/device_guard.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <thread>

#include "client/guard/adaptive_clip.h"
#include "client/guard/cuda/device_guard_impl.h"
#include "client/guard/cuda/device_pointers.h"
#include "client/guard/group_rules.h"
#include "client/guard/options.h"
#include "client/guard/run_shape.h"
#include "client/guard/state_bytes.h"
#include "gradwarden/error.h"

namespace gradwarden {
namespace {

namespace device = kernels::cuda;
using Clock = std::chrono::steady_clock;

void check(const DeviceGuardOptions& options) {
  guard::check(options.guard);
  const bool per_group = options.guard.value_limit > 0 || options.guard.adaptive_clip > 0 ||
                         !options.guard.group_rules.empty();
  if (per_group && options.action == DeviceAction::kOptimizerScales) {
    throw Error(
        "guard options: value_limit, adaptive_clip and group_rules scale each group or tensor by "
        "itself, which grad_scale cannot say; use DeviceAction::kScaleGradients");
  }
}

guard::DeviceMemory zeroed(std::size_t bytes, cudaStream_t stream) {
  guard::DeviceMemory memory(bytes);
  if (bytes != 0) {
    guard::require(cudaMemsetAsync(memory.as<void>(), 0, bytes, stream), "clearing the summaries");
  }
  return memory;
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

void DeviceGuard::Impl::bind(const Bindings& bindings, cudaStream_t stream) {
  bound = false;
  const std::string settings = guard::settings_text(options.guard) + ", action " +
                               std::to_string(static_cast<unsigned>(options.action));
  parameter_count = bindings.parameters.size();
  binding = guard::make_binding(bindings, settings, ranks, guard::check_device_pointers(bindings));
  std::string problem = attempt([&] {
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
  upload_policies(stream);
  const std::size_t group_count = binding.groups.size();
  const auto world = static_cast<std::size_t>(ranks.size());
  summary_size = kernels::summary_bytes(group_count, clipped_tensors);
  own_summary = zeroed(summary_size, stream);
  gathered_summaries = zeroed(world > 1 ? summary_size * world : 0, stream);
  groups = guard::DeviceMemory(group_count * sizeof(kernels::GroupSummary));
  factors = guard::DeviceMemory(std::max(group_count, clipped_tensors) * sizeof(device::Factor));
  reset_state(stream);
  shards.build(binding.shards, {group_count, clipped_tensors, true}, stream);
  local.build(binding.local, {group_count, 0, false}, stream);
  const guard::BoundList* list = guard::parameters_of(binding);
  inspection.choose(binding, options.guard);
  reads_parameters = list != nullptr && (clipped_tensors != 0 || inspection.all_parts().any());
  parameters.build(reads_parameters ? list->segments : std::vector<guard::Segment>{},
                   {group_count, clipped_tensors, true}, stream);
  delivery.build(binding);
  inspection.build(binding, world, {shards, parameters}, stream);
  enqueued = 0;
  calls = 0;
}

std::span<const guard::Segment> DeviceGuard::Impl::parameter_segments() const noexcept {
  if (!reads_parameters) return {};
  return guard::parameters_of(binding)->segments;
}

void DeviceGuard::Impl::upload_policies(cudaStream_t stream) {
  auto policies = guard::group_policies(options.guard, binding.groups);
  const std::vector<double> ratios = guard::adaptive_ratios(binding, policies);
  const bool any = std::any_of(policies.begin(), policies.end(), [](const auto& policy) {
    return policy.max_norm > 0 || policy.value_limit > 0;
  });
  if (!any) policies.clear();
  std::vector<device::TensorPolicy> tensors;
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    tensors.push_back({ratios[i], binding.group_of_tensor[i]});
  }
  clipped_tensors = tensors.size();
  group_policies = guard::upload_table(policies, stream);
  tensor_policies = guard::upload_table(tensors, stream);
  guard::require(cudaStreamSynchronize(stream), "copying the guard's rules to the device");
}

// The window is kept; everything that counts within a binding starts again.
void DeviceGuard::Impl::reset_state(cudaStream_t stream) {
  DeviceState fresh;
  fresh.policy = guard::policy_of(options.guard);
  if (state.as<void>() != nullptr) fresh.state = read_state(stream);
  if (restored) fresh.state = *restored;
  guard::DeviceMemory made(state.as<void>() == nullptr ? sizeof fresh : 0);
  DeviceState* to = made.as<DeviceState>() != nullptr ? made.as<DeviceState>() : at();
  guard::require(cudaMemcpyAsync(to, &fresh, sizeof fresh, cudaMemcpyHostToDevice, stream),
                 "writing the guard's state");
  guard::require(cudaStreamSynchronize(stream), "writing the guard's state");
  if (made.as<void>() != nullptr) state = std::move(made);
  restored.reset();
}

kernels::GuardState DeviceGuard::Impl::read_state(cudaStream_t stream) const {
  kernels::GuardState copy;
  guard::require(cudaMemcpyAsync(&copy, &at()->state, sizeof copy, cudaMemcpyDeviceToHost, stream),
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

void DeviceGuard::bind(const Bindings& bindings, cudaStream_t stream) {
  impl_->bind(bindings, stream);
}

DeviceStatus DeviceGuard::update(std::span<void* const> data, cudaStream_t stream) noexcept {
  return impl_->update(impl_->shards, impl_->binding.shards, impl_->binding.shard_count, data,
                       stream);
}

DeviceStatus DeviceGuard::update_parameters(std::span<void* const> data,
                                            cudaStream_t stream) noexcept {
  return impl_->update(impl_->parameters, impl_->parameter_segments(), impl_->parameter_count, data,
                       stream);
}

DeviceStatus DeviceGuard::observe_local(cudaStream_t stream) noexcept {
  return impl_->observe_local(stream);
}

DeviceStatus DeviceGuard::step(const DeviceStepInput& input, cudaStream_t stream) noexcept {
  return impl_->step(input, stream);
}

DeviceStatus DeviceGuard::inspect(cudaStream_t stream) noexcept { return impl_->inspect(stream); }

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
      // Who waits may step the optimizer by the outcome alone.
      if (impl.options.action == DeviceAction::kOptimizerScales) {
        outcome->grad_scale = header.result.grad_scale;
      }
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
  return impl_->bound ? &impl_->at()->result.found_inf : nullptr;
}

const float* DeviceGuard::grad_scale() const noexcept {
  return impl_->bound ? &impl_->at()->result.grad_scale : nullptr;
}

const float* DeviceGuard::learning_rate_factor() const noexcept {
  return impl_->bound ? &impl_->at()->result.learning_rate_factor : nullptr;
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
  guard::require(
      cudaMemcpyAsync(&impl_->at()->state, &state, sizeof state, cudaMemcpyHostToDevice, stream),
      "writing the guard's state");
  guard::require(cudaStreamSynchronize(stream), "writing the guard's state");
}

FlightRecording DeviceGuard::flight_recording() const {
  FlightRecording recording;
  impl_->delivery.flights().read(nullptr, recording);
  return recording;
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
