#include "daemon/ingest/step_builder.h"

#include <cmath>
#include <optional>

namespace gradwarden::ingest {
namespace {

constexpr std::string_view kUpdateSignal = "update";

// The one rank whose own gradient was non-finite, if there is exactly one.
std::optional<std::uint32_t> birth_rank(const v1::Report& report) {
  std::optional<std::uint32_t> found;
  for (int rank = 0; rank < report.local_non_finite_counts_size(); ++rank) {
    if (report.local_non_finite_counts(rank) == 0) continue;
    if (found) return std::nullopt;
    found = static_cast<std::uint32_t>(rank);
  }
  return found;
}

std::string_view group_name(const Attempt& attempt, std::uint32_t group) {
  return group < attempt.groups.size() ? std::string_view(attempt.groups[group]) : "";
}

}  // namespace

bool is_non_finite(const v1::Report& report) {
  return report.nan_count() != 0 || report.inf_count() != 0 || !std::isfinite(report.grad_norm());
}

bool is_skipped(const v1::Report& report) {
  return report.decision() == v1::DECISION_SKIP && !report.shadow();
}

bool is_clipped(const v1::Report& report) {
  return report.decision() == v1::DECISION_CLIP && !report.shadow();
}

detect::Step StepBuilder::step_of(const Attempt& attempt, const v1::Report& report) {
  detect::Step step;
  step.step = report.step();
  step.time_ns = report.time_unix_ns();
  // Who measured no gradients has neither a norm nor elements to report.
  if (report.grad_norm() != 0 || report.element_count() != 0) step.grad_norm = report.grad_norm();
  step.applied = !is_skipped(report);
  if (report.has_loss()) step.loss = report.loss();
  if (report.has_learning_rate()) step.learning_rate = report.learning_rate();
  if (report.has_loss_scale()) step.loss_scale = report.loss_scale();
  if (is_clipped(report)) step.clip_coefficient = report.clip_coefficient();
  if (report.clip_threshold() > 0) {
    step.clip_threshold = report.clip_threshold();
    step.clipped = report.clip_coefficient() < 1;  // also in shadow mode: it would have
  }
  step.group_norms = {report.group_norms().data(),
                      static_cast<std::size_t>(report.group_norms_size())};
  step.group_names = attempt.groups;
  step.previous_attempt_end = attempt.previous_attempt_end;
  for (const v1::SignalStatistics& signal : report.signals()) {
    if (signal.name() == kUpdateSignal) step.update_norm = signal.norm();
  }
  step.non_finite_count = report.nan_count() + report.inf_count();
  batch_ids_.assign(report.batch_ids().begin(), report.batch_ids().end());
  step.batch_ids = batch_ids_;
  step.local_norms = {report.local_norms().data(),
                      static_cast<std::size_t>(report.local_norms_size())};
  step.audited = report.audited_replicas() != 0;
  mismatches_.clear();
  for (const v1::ReplicaMismatch& entry : report.mismatches()) {
    detect::ReplicaMismatch& mismatch = mismatches_.emplace_back();
    mismatch.tensor = entry.tensor();
    mismatch.group = group_name(attempt, entry.group());
    mismatch.signal = entry.signal();
    mismatch.element = entry.index();
    mismatch.rank_count = entry.rank_count();
    mismatch.ranks = {entry.ranks().data(), static_cast<std::size_t>(entry.ranks_size())};
    mismatch.declared_identical = entry.declared_identical();
  }
  step.mismatches = mismatches_;
  if (is_non_finite(report)) {
    step.loss_scale_overflow = report.reason() == v1::REASON_LOSS_SCALE_OVERFLOW;
    step.birth_rank = birth_rank(report);
    step.origins = origins_of(attempt, report);
  }
  return step;
}

std::span<const detect::NonFiniteOrigin> StepBuilder::origins_of(const Attempt& attempt,
                                                                 const v1::Report& report) {
  origins_.clear();
  for (const v1::NonFinite& entry : report.non_finite()) {
    detect::NonFiniteOrigin& origin = origins_.emplace_back();
    origin.tensor = entry.tensor();
    origin.group = group_name(attempt, entry.group());
    origin.rank = entry.rank();
    origin.element = entry.index();
    origin.local = entry.local();
  }
  return origins_;
}

}  // namespace gradwarden::ingest
