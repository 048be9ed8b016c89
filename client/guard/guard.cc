#include "gradwarden/guard.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <thread>

#include "client/guard/binding.h"
#include "client/guard/group_rules.h"
#include "client/guard/options.h"
#include "client/guard/run_shape.h"
#include "client/guard/state_bytes.h"
#include "client/guard/summary.h"
#include "gradwarden/error.h"
#include "kernels/cpu/scale.h"
#include "kernels/cpu/statistics.h"
#include "kernels/numerics/decision.h"

namespace gradwarden {
namespace {

using guard::Binding;
using guard::GroupSummary;
using guard::RankHeader;
using guard::Segment;

unsigned thread_count(unsigned wanted) {
  return wanted != 0 ? wanted : std::max(1U, std::thread::hardware_concurrency());
}

}  // namespace

struct Guard::Impl {
  // One list of gradients that is read in one pass.
  struct Reading {
    explicit Reading(kernels::ParallelFor& threads) : kernel(threads) {}
    void plan(std::vector<Segment> list);
    void run(double norm_type) noexcept { kernel.run(tensors, norm_type, statistics); }

    kernels::StatisticsKernel kernel;
    std::vector<Segment> segments;
    std::vector<kernels::ConstTensor> tensors;
    std::vector<kernels::Statistics> statistics;
  };

  Impl(const GuardOptions& o, Collective& r, StepSink* s)
      : options(o),
        policy(guard::policy_of(o)),
        ranks(r),
        sink(s),
        threads(thread_count(o.threads)) {}

  void bind(std::span<const TensorShard> shard_list, std::span<const TensorShard> local_list);
  bool exchange(const StepInput& input) noexcept;
  bool non_finite() const noexcept { return global.nan_count + global.inf_count != 0; }
  kernels::StepVerdict decide(bool agreed) noexcept;
  StepOutcome outcome_of(const kernels::StepVerdict& verdict) const noexcept;
  void clip_groups(StepOutcome& outcome) noexcept;
  void act(const StepOutcome& outcome) noexcept;
  void record(const StepInput& input, const StepOutcome& outcome,
              const kernels::StepVerdict& verdict) noexcept;
  std::span<const NonFiniteTensor> findings() noexcept;

  const GuardOptions options;
  const kernels::GuardPolicy policy;
  kernels::GuardState state;
  Collective& ranks;
  StepSink* const sink;
  kernels::ParallelFor threads;
  Reading shards{threads};
  Reading local{threads};
  Binding binding;
  bool bound = false;
  bool observed = false;
  std::uint64_t sequence = 0;  // steps since bind
  std::vector<kernels::Tensor> scaled;
  std::vector<kernels::Scaling> scalings;  // of `scaled`
  std::vector<kernels::GroupPolicy> group_policies;
  std::vector<double> group_coefficients;
  std::vector<unsigned char> mine;
  std::vector<unsigned char> gathered;
  std::vector<GroupSummary> groups;
  guard::GlobalStatistics global;
  std::vector<NonFiniteTensor> own;
};

void Guard::Impl::Reading::plan(std::vector<Segment> list) {
  segments = std::move(list);
  tensors.clear();
  for (const Segment& segment : segments) {
    tensors.push_back({segment.data, segment.count, static_cast<kernels::DType>(segment.dtype)});
  }
  statistics.assign(segments.size(), {});
  kernel.plan(tensors);
}

void Guard::Impl::bind(std::span<const TensorShard> shard_list,
                       std::span<const TensorShard> local_list) {
  bound = false;
  binding = guard::make_binding(shard_list, local_list, guard::settings_text(options), ranks);
  shards.plan(binding.shards);
  local.plan(binding.local);
  scaled.clear();
  for (const Segment& segment : binding.shards) {
    scaled.push_back({segment.data, segment.count, static_cast<kernels::DType>(segment.dtype)});
  }
  const auto world = static_cast<std::size_t>(ranks.size());
  groups.assign(binding.groups.size(), {});
  mine.assign(kernels::summary_bytes(groups.size()), 0);
  gathered.assign(mine.size() * world, 0);
  global.resize(groups.size(), world);
  global.norm_type = options.norm_type;
  group_policies = guard::group_policies(options, binding.groups);
  group_coefficients.assign(groups.size(), 1.0);
  scalings.assign(scaled.size(), {});
  own.reserve(guard::kMaxNonFinite);
  observed = false;
  sequence = 0;
  std::string problem;  // of one rank's sink: its history file, for example
  try {
    if (sink != nullptr) sink->begin(guard::run_shape(binding, options, ranks));
  } catch (const std::exception& error) {
    problem = error.what();
  }
  guard::agree(problem, ranks);
  bound = true;
}

// One pass over the shards, one all-gather. False if the ranks could not exchange or are at
// different steps; `global` is then this rank's alone.
bool Guard::Impl::exchange(const StepInput& input) noexcept {
  shards.run(options.norm_type);
  RankHeader header;
  header.sequence = ++sequence;
  header.loss_scale = input.loss_scale.value_or(0);
  guard::summarize_shards(shards.segments, shards.statistics, options.norm_type, header, groups);
  if (observed) {
    guard::summarize_local(local.segments, local.statistics, options.norm_type, header);
  }
  std::memcpy(mine.data(), &header, sizeof header);
  std::memcpy(mine.data() + sizeof header, groups.data(), groups.size() * sizeof(GroupSummary));
  const bool agreed = ranks.all_gather(mine.data(), gathered.data(), mine.size());
  const auto world = static_cast<std::size_t>(ranks.size());
  const bool same_step = agreed && guard::at_same_step({gathered.data(), mine.size(), world});
  if (!same_step) {
    std::memset(gathered.data(), 0, gathered.size());
    std::memcpy(gathered.data() + static_cast<std::size_t>(ranks.rank()) * mine.size(), mine.data(),
                mine.size());
  }
  guard::fold_ranks(gathered.data(), world, global);
  return same_step;
}

kernels::StepVerdict Guard::Impl::decide(bool agreed) noexcept {
  if (agreed)
    return kernels::decide(policy, state, {global.norm, non_finite(), global.loss_scale > 0});
  kernels::StepVerdict verdict;  // no window may learn from what the other ranks do not know
  verdict.decision = kernels::Decision::kSkip;
  verdict.reason = kernels::Reason::kCollectiveFailed;
  return verdict;
}

StepOutcome Guard::Impl::outcome_of(const kernels::StepVerdict& verdict) const noexcept {
  StepOutcome outcome;
  outcome.decision = static_cast<Decision>(verdict.decision);
  outcome.reason = static_cast<Reason>(verdict.reason);
  outcome.grad_norm = non_finite() ? std::numeric_limits<double>::quiet_NaN() : global.norm;
  outcome.clip_coefficient = verdict.clip_coefficient;
  outcome.learning_rate_factor = verdict.learning_rate_factor;
  outcome.shadow = options.shadow;
  outcome.stop_requested = verdict.stop_requested && !options.shadow;
  return outcome;
}

// What the groups' own thresholds add to the verdict on the whole.
void Guard::Impl::clip_groups(StepOutcome& outcome) noexcept {
  const bool usable = outcome.decision != Decision::kSkip && !non_finite();
  for (std::size_t group = 0; group < group_policies.size(); ++group) {
    double& coefficient = group_coefficients[group];
    coefficient = outcome.clip_coefficient;
    if (!usable) continue;
    coefficient = kernels::group_coefficient(group_policies[group], global.group_norms[group],
                                             outcome.clip_coefficient);
    if (coefficient < outcome.clip_coefficient) ++outcome.clipped_groups;
  }
  if (outcome.clipped_groups == 0 || outcome.decision != Decision::kApply) return;
  outcome.decision = Decision::kClip;
  if (outcome.reason == Reason::kWithinLimits) outcome.reason = Reason::kGroupMaxNorm;
}

// The one write to gradient memory: clip coefficients, loss scale and limits in one pass. A skipped
// step is left untouched.
void Guard::Impl::act(const StepOutcome& outcome) noexcept {
  if (!outcome.should_update()) return;
  const double unscale = global.loss_scale > 0 ? 1.0 / global.loss_scale : 1.0;
  for (std::size_t i = 0; i < scaled.size(); ++i) {
    const std::uint32_t group = shards.segments[i].group;
    scalings[i].factor = unscale;
    scalings[i].limit = 0;
    if (outcome.shadow) continue;
    scalings[i].factor = group_coefficients[group];
    if (global.loss_scale > 0) scalings[i].factor /= global.loss_scale;
    scalings[i].limit = group_policies[group].value_limit;
  }
  kernels::scale(scaled, scalings, threads);
}

// Rank 0 tells what all ranks found first; the others every tensor of their own.
std::span<const NonFiniteTensor> Guard::Impl::findings() noexcept {
  if (ranks.rank() == 0) return global.non_finite;
  own.clear();
  const auto rank = static_cast<std::uint32_t>(ranks.rank());
  if (observed) guard::append_own_non_finite(local.segments, local.statistics, rank, true, own);
  guard::append_own_non_finite(shards.segments, shards.statistics, rank, false, own);
  return own;
}

void Guard::Impl::record(const StepInput& input, const StepOutcome& outcome,
                         const kernels::StepVerdict& verdict) noexcept {
  StepRecord record;
  record.step = input.step;
  record.grad_norm = outcome.grad_norm;
  record.clip_coefficient = outcome.clip_coefficient;
  record.decision = outcome.decision;
  record.reason = outcome.reason;
  record.shadow = outcome.shadow;
  record.rolling_mean = verdict.rolling_mean;
  record.threshold = verdict.threshold;
  record.clip_threshold = verdict.clip_threshold;
  record.learning_rate_factor = verdict.learning_rate_factor;
  record.broken_rules = verdict.broken_rules;
  record.loss = input.loss;
  record.learning_rate = input.learning_rate;
  record.loss_scale = input.loss_scale;
  record.nan_count = global.nan_count;
  record.inf_count = global.inf_count;
  record.zero_count = global.zero_count;
  record.element_count = binding.element_count;
  record.max_abs = global.max_abs;
  guard::describe_groups_and_ranks(global, record);
  record.non_finite = findings();
  record.batch_ids = input.batch_ids;
  sink->submit(record);
}

Guard::Guard(const GuardOptions& options, Collective& ranks, StepSink* sink) {
  guard::check(options);
  impl_ = std::make_unique<Impl>(options, ranks, sink);
}

Guard::~Guard() = default;

void Guard::bind(const Bindings& bindings) { impl_->bind(bindings.gradients, bindings.local); }

void Guard::observe_local() noexcept {
  if (!impl_->bound || impl_->local.segments.empty()) return;
  impl_->local.run(impl_->options.norm_type);
  impl_->observed = true;
}

StepOutcome Guard::step(const StepInput& input) {
  if (!impl_->bound)
    throw Error("guard: step() before bind(); call bind() with the gradients first");
  const kernels::StepVerdict verdict = impl_->decide(impl_->exchange(input));
  StepOutcome outcome = impl_->outcome_of(verdict);
  impl_->clip_groups(outcome);
  if (impl_->sink != nullptr) impl_->record(input, outcome, verdict);
  impl_->act(outcome);
  impl_->observed = false;
  return outcome;
}

std::vector<std::byte> Guard::save_state() const {
  return guard::save(impl_->state, impl_->policy);
}

void Guard::restore_state(std::span<const std::byte> state) {
  impl_->state = guard::restore(state, impl_->policy);
}

}  // namespace gradwarden
