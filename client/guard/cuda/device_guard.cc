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
  const bool per_group = options.guard.value_limit > 0 || !options.guard.group_rules.empty();
  if (per_group && options.action == DeviceAction::kOptimizerScales) {
    throw Error(
        "guard options: value_limit and group_rules scale each group by itself, which grad_scale "
        "cannot say; use DeviceAction::kScaleGradients");
  }
  if (guard::clips_adaptively(options.guard) || options.guard.audit_every != 0 ||
      options.guard.observe_others_every != 0) {
    throw Error(
        "guard options: adaptive_clip, audit_every and observe_others_every are for gradients in "
        "host memory (gradwarden::Guard); set them to 0");
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

void DeviceGuard::Impl::bind(const Bindings& bindings, cudaStream_t stream) {
  bound = false;
  const std::string settings = guard::settings_text(options.guard) + ", action " +
                               std::to_string(static_cast<unsigned>(options.action));
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
  calls = 0;
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

DeviceStatus DeviceGuard::observe_local(cudaStream_t stream) noexcept {
  return impl_->observe_local(stream);
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

DeviceStatus DeviceGuard::health() const noexcept { return impl_->delivery.health(); }

std::uint64_t DeviceGuard::lost_records() const noexcept { return impl_->delivery.lost_records(); }

std::string DeviceGuard::last_error() const {
  const std::lock_guard lock(impl_->error_mutex);
  const std::string exchange = impl_->ranks.last_error();
  if (impl_->error.empty() || exchange.empty()) return impl_->error + exchange;
  return impl_->error + "; " + exchange;
}

}  // namespace gradwarden
