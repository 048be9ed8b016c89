// One step of a Guard of host memory, in the order in which it happens.
#include <algorithm>
#include <cstring>
#include <limits>

#include "client/guard/guard_impl.h"
#include "gradwarden/error.h"

namespace gradwarden {

using guard::GroupSummary;
using guard::RankHeader;

bool Guard::Impl::observes() const noexcept {
  return bound && !local.empty() && sequence % options.local_every == 0;
}

void Guard::Impl::observe_local() noexcept {
  if (!observes()) return;
  local.run(options.norm_type);
  observed = true;
}

void Guard::Impl::observe_local(std::span<const StretchStatistics> found) {
  if (!observes()) return;
  if (found.size() != local.segments().size()) {
    throw Error("guard: observe_local() with statistics of " + std::to_string(found.size()) +
                " shards; bind() was given " + std::to_string(local.segments().size()));
  }
  local.take(found);
  observed = true;
}

StepOutcome Guard::Impl::step(const StepInput& input, std::span<const StretchStatistics> found,
                              std::span<StretchScaling> to_do) noexcept {
  const kernels::StepVerdict verdict = decide(exchange(input, found));
  StepOutcome outcome = outcome_of(verdict);
  clip_groups(outcome);
  recorder.write({input.step, outcome.grad_norm, outcome.decision, outcome.reason},
                 shards.statistics(), options.norm_type);
  if (sink != nullptr) record(input, outcome, verdict);
  if (optimizer_scales(input, outcome)) {
    const double scale = global.loss_scale > 0 ? global.loss_scale : 1.0;
    outcome.grad_scale = scale / (outcome.shadow ? 1.0 : outcome.clip_coefficient);
  } else {
    act(outcome, to_do);
  }
  observed = false;
  return outcome;
}

// The same on all ranks: it follows from the options and the number of the step.
Guard::Impl::Extras Guard::Impl::extras_of(std::uint64_t of_sequence) const noexcept {
  const auto due = [of_sequence](std::uint32_t every) {
    return every != 0 && of_sequence % every == 0;
  };
  Extras extras;
  extras.audit = due(options.audit_every) && !binding.regions.empty();
  extras.signals = due(options.observe_others_every) && !binding.others.empty();
  extras.bytes = kernels::summary_bytes(groups.size(), adaptive.tensor_count());
  extras.audit_at = extras.bytes;
  if (extras.audit) extras.bytes += audit.block_bytes();
  extras.signals_at = extras.bytes;
  if (extras.signals)
    extras.bytes += guard::signal_block_bytes(binding.others.size(), groups.size());
  return extras;
}

// Each list once, and only those that the step needs.
void Guard::Impl::read(const Extras& extras, std::span<const StretchStatistics> found) noexcept {
  outside = !found.empty();
  if (outside) {
    shards.take(found);
  } else {
    shards.run(options.norm_type);
  }
  const bool parameters = guard::parameters_of(binding) != nullptr;
  for (std::size_t list = 0; list < binding.others.size(); ++list) {
    const bool needed = parameters && list == 0 && (adaptive.on() || extras.audit);
    if (needed || extras.signals) others.read(list, options.norm_type);
  }
}

void Guard::Impl::summarize(const StepInput& input, const Extras& extras) noexcept {
  RankHeader header;
  header.sequence = sequence;
  header.loss_scale = input.loss_scale.value_or(0);
  if (input.unscaled && header.loss_scale > 0) header.loss_scale = 1;
  guard::summarize_shards(shards.segments(), shards.statistics(), options.norm_type, header,
                          groups);
  if (observed) {
    guard::summarize_local(local.segments(), local.statistics(), options.norm_type, header);
  }
  unsigned char* out = mine.data();
  const auto append = [&out](const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(out, from, bytes);
    out += bytes;
  };
  append(&header, sizeof header);
  append(groups.data(), groups.size() * sizeof(GroupSummary));
  if (adaptive.on()) {
    const auto sums = adaptive.summarize(shards, others.reading(0));
    append(sums.data(), sums.size_bytes());
  }
  if (extras.audit) {
    const auto sums = audit.take(options.norm_type, !outside);
    append(sums.data(), sums.size_bytes());
  }
  if (extras.signals) {
    const auto summaries = others.summarize();
    append(summaries.data(), summaries.size_bytes());
  }
}

// One pass over the shards, one all-gather. False if the ranks could not exchange or are at
// different steps; `global` is then this rank's alone.
bool Guard::Impl::exchange(const StepInput& input,
                           std::span<const StretchStatistics> found) noexcept {
  const Extras extras = extras_of(++sequence);
  read(extras, found);
  summarize(input, extras);
  const auto world = static_cast<std::size_t>(ranks.size());
  const bool agreed = ranks.all_gather(mine.data(), gathered.data(), extras.bytes);
  const bool same_step = agreed && guard::at_same_step({gathered.data(), extras.bytes, world});
  if (!same_step) {
    std::memset(gathered.data(), 0, extras.bytes * world);
    std::memcpy(gathered.data() + static_cast<std::size_t>(ranks.rank()) * extras.bytes,
                mine.data(), extras.bytes);
  }
  guard::fold_ranks(gathered.data(), extras.bytes, world, global);
  audited = 0;
  signals_taken = false;
  mismatches.clear();
  if (same_step) take_extras(extras);
  return same_step;
}

void Guard::Impl::take_extras(const Extras& extras) noexcept {
  const auto world = static_cast<std::size_t>(ranks.size());
  if (adaptive.on()) {
    adaptive.decide(gathered.data(), world, extras.bytes, groups.size(), global.loss_scale);
  }
  if (extras.audit) {
    guard::compare_regions(binding.regions, {gathered.data() + extras.audit_at, extras.bytes},
                           options.norm_type, options.audit_tolerance, mismatches);
    audited = binding.regions.size();
  }
  if (extras.signals) {
    signals.fold(gathered.data() + extras.signals_at, extras.bytes, world, options.norm_type);
    signals_taken = true;
  }
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

// What the groups' and tensors' own thresholds add to the verdict on the whole.
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
  tensors_clip = usable && adaptive.on();
  for (std::uint32_t tensor = 0; tensors_clip && tensor < adaptive.tensor_count(); ++tensor) {
    const double whole = group_coefficients[binding.group_of_tensor[tensor]];
    if (adaptive.coefficient(tensor) < whole) ++outcome.clipped_tensors;
  }
  if (outcome.clipped_groups + outcome.clipped_tensors == 0 ||
      outcome.decision != Decision::kApply) {
    return;
  }
  outcome.decision = Decision::kClip;
  if (outcome.reason == Reason::kWithinLimits) {
    outcome.reason = outcome.clipped_groups != 0 ? Reason::kGroupMaxNorm : Reason::kAdaptiveClip;
  }
}

double Guard::Impl::coefficient_of(const guard::Segment& segment) const noexcept {
  const double group = group_coefficients[segment.group];
  return tensors_clip ? std::min(group, adaptive.coefficient(segment.tensor)) : group;
}

double Guard::Impl::limit_of(const guard::Segment& segment) const noexcept {
  const kernels::GroupPolicy& policy = group_policies[segment.group];
  if (non_finite()) return policy.value_limit;
  return kernels::needed_limit(policy, global.group_max_abs[segment.group],
                               coefficient_of(segment));
}

// Whether one factor for all gradients says everything that act() would do. Not with a coefficient
// of 0, which would be divided by.
bool Guard::Impl::optimizer_scales(const StepInput& input,
                                   const StepOutcome& outcome) const noexcept {
  if (!input.optimizer_scales || !outcome.should_update()) return false;
  if (outcome.shadow) return true;
  if (outcome.clipped_groups + outcome.clipped_tensors != 0 || !(outcome.clip_coefficient > 0)) {
    return false;
  }
  const auto& segments = shards.segments();
  return std::none_of(segments.begin(), segments.end(),
                      [this](const guard::Segment& segment) { return limit_of(segment) > 0; });
}

// The one write to gradient memory: clip coefficients, loss scale and limits in one pass. A skipped
// step is left untouched.
void Guard::Impl::act(const StepOutcome& outcome, std::span<StretchScaling> to_do) noexcept {
  if (!outcome.should_update()) return;
  const double unscale = global.loss_scale > 0 ? 1.0 / global.loss_scale : 1.0;
  for (std::size_t i = 0; i < scaled.size(); ++i) {
    const guard::Segment& segment = shards.segments()[i];
    scalings[i].factor = unscale;
    scalings[i].limit = 0;
    if (outcome.shadow) continue;
    scalings[i].factor = coefficient_of(segment);
    if (global.loss_scale > 0) scalings[i].factor /= global.loss_scale;
    scalings[i].limit = limit_of(segment);
  }
  if (!outside) {
    kernels::scale(scaled, scalings, threads);
    return;
  }
  for (std::size_t i = 0; i < to_do.size(); ++i) to_do[i] = {scalings[i].factor, scalings[i].limit};
}

// Every tensor of this rank's own; on rank 0 after what each rank found first.
std::span<const NonFiniteTensor> Guard::Impl::findings() noexcept {
  own.clear();
  const auto rank = static_cast<std::uint32_t>(ranks.rank());
  if (rank == 0) {
    if (global.non_finite.empty()) return {};
    own.assign(global.non_finite.begin(), global.non_finite.end());
  }
  if (observed) {
    guard::append_own_non_finite(local.segments(), local.statistics(), rank, true, own);
  }
  guard::append_own_non_finite(shards.segments(), shards.statistics(), rank, false, own);
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
  record.audited_replicas = audited;
  record.mismatches = mismatches;
  if (signals_taken) {
    record.signals = signals.signals;
    record.signal_group_norms = signals.group_norms;
  }
  record.batch_ids = input.batch_ids;
  sink->submit(record);
}

}  // namespace gradwarden
