#include "gradwarden/guard.h"

#include <algorithm>
#include <thread>

#include "client/guard/group_rules.h"
#include "client/guard/guard_impl.h"
#include "client/guard/options.h"
#include "client/guard/run_shape.h"
#include "client/guard/state_bytes.h"
#include "gradwarden/error.h"

namespace gradwarden {
namespace {

unsigned thread_count(unsigned wanted) {
  return wanted != 0 ? wanted : std::max(1U, std::thread::hardware_concurrency());
}

// One call at a time: a second one, from another thread or from within an exchange, is refused
// where it could still be.
class OneCall {
 public:
  OneCall(std::atomic<bool>& busy, const char* name) : busy_(busy) {
    if (!busy_.exchange(true, std::memory_order_acquire)) return;
    throw Error(std::string("guard: ") + name +
                " while another call of the guard is under way; make its calls from one thread, "
                "one after the other");
  }
  ~OneCall() { busy_.store(false, std::memory_order_release); }
  OneCall(const OneCall&) = delete;
  OneCall& operator=(const OneCall&) = delete;

 private:
  std::atomic<bool>& busy_;
};

}  // namespace

Guard::Impl::Impl(const GuardOptions& o, Collective& r, StepSink* s)
    : options(o),
      policy(guard::policy_of(o)),
      ranks(r),
      sink(s),
      threads(thread_count(o.threads)) {}

Guard::Impl::~Impl() {
  if (recording) sink->detach(*this);
}

void Guard::Impl::bind(const Bindings& bindings) {
  bound = false;
  if (recording) sink->detach(*this);
  recording = false;
  binding = guard::make_binding(bindings, guard::settings_text(options), ranks);
  group_policies = guard::group_policies(options, binding.groups);
  adaptive.plan(guard::adaptive_ratios(binding, group_policies), options.adaptive_clip_least_norm,
                options.norm_type);
  parameter_count = bindings.parameters.size();
  plan();
  begin_reporting();
  bound = true;
}

// Sizes everything that a step uses.
void Guard::Impl::plan() {
  shards.plan(binding.shards);
  local.plan(binding.local);
  others.plan(binding.others, binding.groups.size());
  const bool parameters = guard::parameters_of(binding) != nullptr;  // the first list, then
  if (options.audit_every == 0) binding.regions.clear();
  audit.plan(binding.regions, shards, parameters ? &others.reading(0) : nullptr,
             options.audit_every != 0);
  scaled.clear();
  for (const guard::Segment& segment : binding.shards) {
    scaled.push_back({segment.data, segment.count, static_cast<kernels::DType>(segment.dtype)});
  }
  scalings.assign(scaled.size(), {});
  group_coefficients.assign(binding.groups.size(), 1.0);
  groups.assign(binding.groups.size(), {});
  const auto world = static_cast<std::size_t>(ranks.size());
  std::size_t most = kernels::summary_bytes(groups.size(), adaptive.tensor_count());
  if (options.audit_every != 0) most += audit.block_bytes();
  if (options.observe_others_every != 0) {
    most += guard::signal_block_bytes(binding.others.size(), groups.size());
  }
  mine.assign(most, 0);
  gathered.assign(most * world, 0);
  global.resize(groups.size(), world);
  global.norm_type = options.norm_type;
  global.local_is_whole = binding.local_is_whole;
  signals.resize(binding.others, groups.size());
  own.reserve(guard::kMaxNonFinite);
  mismatches.reserve(guard::kMaxMismatches);
  recorder.build(options.flight_recorder ? std::span<const guard::Segment>(binding.shards)
                                         : std::span<const guard::Segment>());
  observed = false;
  sequence = 0;
}

// What goes wrong in one rank's sink, its history file for example, is told to all.
void Guard::Impl::begin_reporting() {
  std::string problem;
  try {
    if (sink != nullptr) {
      sink->begin(guard::run_shape(binding, options, ranks));
      if (options.flight_recorder) recording = sink->attach(*this);
    }
  } catch (const std::exception& error) {
    problem = error.what();
  }
  guard::agree(problem, ranks);
}

// `shard_count` is that of the list given to bind; `segments` are cut from its shards.
void Guard::Impl::check_move(std::span<const guard::Segment> segments, std::size_t shard_count,
                             std::span<void* const> data, const char* call) const {
  const auto refuse = [call](const std::string& why) {
    throw Error(std::string("guard: ") + call + why);
  };
  if (!bound) refuse(" before bind(); call bind() with the tensors first");
  if (data.size() != shard_count) {
    refuse(" with " + std::to_string(data.size()) + " addresses; bind() was given " +
           std::to_string(shard_count) + " shards");
  }
  for (const guard::Segment& segment : segments) {
    if (segment.count == 0 || data[segment.shard] != nullptr) continue;
    refuse(": null for tensor \"" + binding.tensors[segment.tensor] + "\", which has elements");
  }
}

void Guard::Impl::update_gradients(std::span<void* const> data) {
  check_move(shards.segments(), binding.shard_count, data, "update_gradients()");
  shards.move(data);
  for (std::size_t i = 0; i < scaled.size(); ++i) scaled[i].data = shards.segments()[i].data;
}

void Guard::Impl::update_local(std::span<void* const> data) {
  check_move(local.segments(), binding.local.size(), data, "update_local()");
  local.move(data);
}

void Guard::Impl::update_parameters(std::span<void* const> data) {
  const bool any = guard::parameters_of(binding) != nullptr;  // the first list, then
  std::span<const guard::Segment> segments;
  if (any) segments = others.reading(0).segments();
  check_move(segments, parameter_count, data, "update_parameters()");
  if (any) others.reading(0).move(data);
}

bool Guard::Impl::flight(std::uint64_t last_step, FlightRecording& out) {
  return last_step == kNewestStep ? recorder.read_newest(out) : recorder.read(last_step, out);
}

Guard::Guard(const GuardOptions& options, Collective& ranks, StepSink* sink) {
  guard::check(options);
  impl_ = std::make_unique<Impl>(options, ranks, sink);
}

Guard::~Guard() = default;

void Guard::bind(const Bindings& bindings) {
  const OneCall call(impl_->busy, "bind()");
  impl_->bind(bindings);
}

void Guard::update_gradients(std::span<void* const> data) {
  const OneCall call(impl_->busy, "update_gradients()");
  impl_->update_gradients(data);
}

void Guard::update_local(std::span<void* const> data) {
  const OneCall call(impl_->busy, "update_local()");
  impl_->update_local(data);
}

void Guard::update_parameters(std::span<void* const> data) {
  const OneCall call(impl_->busy, "update_parameters()");
  impl_->update_parameters(data);
}

void Guard::observe_local() noexcept { impl_->observe_local(); }

void Guard::observe_local(std::span<const StretchStatistics> found) {
  const OneCall call(impl_->busy, "observe_local()");
  impl_->observe_local(found);
}

StepOutcome Guard::step(const StepInput& input) {
  const OneCall call(impl_->busy, "step()");
  if (!impl_->bound)
    throw Error("guard: step() before bind(); call bind() with the gradients first");
  return impl_->step(input, {}, {});
}

StepOutcome Guard::step(const StepInput& input, std::span<const StretchStatistics> found,
                        std::span<StretchScaling> to_do) {
  const OneCall call(impl_->busy, "step()");
  if (!impl_->bound)
    throw Error("guard: step() before bind(); call bind() with the gradients first");
  if (!impl_->binding.others.empty()) {
    throw Error(
        "guard: step() with statistics of gradients elsewhere; bind no other tensors, which are "
        "read "
        "in host memory");
  }
  const std::size_t expected = impl_->shards.segments().size();
  if (found.size() != expected || to_do.size() != expected) {
    throw Error("guard: step() with statistics of " + std::to_string(found.size()) +
                " stretches and room for " + std::to_string(to_do.size()) + "; there are " +
                std::to_string(expected));
  }
  std::fill(to_do.begin(), to_do.end(), StretchScaling{});
  return impl_->step(input, found, to_do);
}

std::vector<Stretch> Guard::stretches() const {
  std::vector<Stretch> stretches;
  for (const guard::Segment& segment : impl_->shards.segments()) {
    stretches.push_back(
        {segment.shard, segment.byte_offset / dtype_bytes(segment.dtype), segment.count});
  }
  return stretches;
}

std::vector<std::byte> Guard::save_state() const {
  const OneCall call(impl_->busy, "save_state()");
  return guard::save(impl_->state, impl_->policy);
}

void Guard::restore_state(std::span<const std::byte> state) {
  const OneCall call(impl_->busy, "restore_state()");
  impl_->state = guard::restore(state, impl_->policy);
}

FlightRecording Guard::flight_recording() const {
  FlightRecording recording;
  impl_->recorder.read_newest(recording);
  return recording;
}

}  // namespace gradwarden
