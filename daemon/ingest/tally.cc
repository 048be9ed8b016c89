#include "daemon/ingest/tally.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/names.h"
#include "daemon/ingest/step_builder.h"
#include "proto/limits.h"

namespace gradwarden::ingest {
namespace {

constexpr double kRankOutlier = 3;
constexpr std::size_t kMaxRankOutliers = 16;

std::vector<std::pair<std::uint32_t, double>> outliers_of(const v1::Report& report) {
  std::vector<double> sorted(report.local_norms().begin(), report.local_norms().end());
  const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
  // What is not finite has no place in an order.
  std::replace_if(
      sorted.begin(), sorted.end(), [](double norm) { return !std::isfinite(norm); },
      std::numeric_limits<double>::infinity());
  std::nth_element(sorted.begin(), middle, sorted.end());
  std::vector<std::pair<std::uint32_t, double>> found;
  for (int rank = 0; rank < report.local_norms_size() && found.size() < kMaxRankOutliers; ++rank) {
    const double ratio = report.local_norms(rank) / *middle;
    if (ratio <= kRankOutlier && ratio >= 1 / kRankOutlier) continue;
    if (std::isfinite(*middle)) found.emplace_back(static_cast<std::uint32_t>(rank), ratio);
  }
  return found;
}

void set_latest(const v1::Report& report, const detect::Judgement& judgement,
                metrics::RunValues& values) {
  values.any_step = true;
  values.grad_norm = report.grad_norm();
  values.rolling_mean = judgement.rolling_mean;
  values.threshold = judgement.threshold;
  values.clip_coefficient = report.clip_coefficient();
  values.step = report.step();
  if (report.has_loss()) values.loss = report.loss();
  if (report.has_learning_rate()) values.learning_rate = report.learning_rate();
  if (report.has_loss_scale()) values.loss_scale = report.loss_scale();
}

void add_tally(const Tally& tally, metrics::RunValues& values) {
  values.steps += tally.steps;
  values.clipped += tally.clipped;
  values.non_finite += tally.non_finite;
  values.audited_replicas += tally.audited_replicas;
  values.replica_mismatches += tally.mismatches;
  for (const v1::Reason reason : tally.skips) ++values.skipped[reason_name(reason)];
  values.norm_ratios.add(tally.norm_ratios);
  if (values.shared) return;  // the rest does not add up
  if (tally.rank_norm_ratios) values.rank_norm_ratios = *tally.rank_norm_ratios;
  if (tally.gradient_noise_scale) values.gradient_noise_scale = tally.gradient_noise_scale;
  for (const auto& [name, norm] : tally.signal_norms) {
    // Names come from the trainer: no more of them than one report may have.
    const bool known = values.signal_norms.count(name) != 0;
    if (known || values.signal_norms.size() < limits::kMaxSignals) values.signal_norms[name] = norm;
  }
}

void set_groups(const v1::Report& report, Attempt& attempt, metrics::RunValues& values) {
  const auto count = static_cast<std::size_t>(report.group_norms_size());
  if (count == 0 || count != attempt.groups.size()) return;
  attempt.group_norms.observe(report.group_norms().data(), count);
  values.group_norms.clear();
  for (const auto& [index, norm] : attempt.group_norms.shown()) {
    values.group_norms.emplace_back(attempt.groups[index], norm);
  }
}

void add_findings(const Attempt& attempt, const std::vector<detect::Finding>& findings,
                  metrics::RunValues& values) {
  for (const detect::Finding& finding : findings) {
    const detect::Incident& incident = finding.incident;
    // Who is paged for critical events alone waits for the one that became critical.
    const bool counts =
        finding.change == detect::Change::kBegin || finding.change == detect::Change::kRise;
    if (!counts) continue;
    const auto severity = static_cast<v1::Severity>(incident.severity);
    ++values
          .events[{incident.kind, std::string(severity_name(severity)), incident.diagnosis.cause}];
  }
  if (values.shared) return;
  values.open.clear();
  for (const auto& [labels, count] : values.events) values.open[labels.kind] = 0;
  for (const detect::Incident& open : attempt.detector.open_incidents()) ++values.open[open.kind];
}

}  // namespace

void Tally::add(const v1::Report& report) {
  ++steps;
  if (is_clipped(report)) ++clipped;
  if (is_skipped(report)) skips.push_back(report.reason());
  if (is_non_finite(report)) ++non_finite;
  audited_replicas += report.audited_replicas();
  for (const v1::ReplicaMismatch& mismatch : report.mismatches()) {
    if (mismatch.declared_identical()) ++mismatches;
  }
  if (report.rolling_mean() > 0 && std::isfinite(report.grad_norm())) {
    norm_ratios.observe(report.grad_norm() / report.rolling_mean());
  }
  if (report.local_norms_size() > 1) rank_norm_ratios = outliers_of(report);
  if (report.has_gradient_noise_scale()) gradient_noise_scale = report.gradient_noise_scale();
  for (const v1::SignalStatistics& signal : report.signals()) {
    signal_norms[signal.name()] = signal.norm();
  }
}

void Tally::clear() {
  skips.clear();
  signal_norms.clear();
  norm_ratios = {};
  rank_norm_ratios.reset();
  gradient_noise_scale.reset();
  steps = clipped = non_finite = audited_replicas = mismatches = 0;
}

void publish(Attempt& attempt, const Tally& tally, const std::vector<detect::Finding>& findings,
             const v1::Report* latest) {
  if (attempt.metrics == nullptr) return;
  attempt.metrics->update([&](metrics::RunValues& values) {
    add_tally(tally, values);
    add_findings(attempt, findings, values);
    if (values.shared) return;
    values.last_report_ns = attempt.progress.last_report_ns;
    values.dropped = attempt.dropped;
    values.pending = attempt.pending;
    values.finished = attempt.progress.finished;
    if (attempt.last_checkpoint) values.last_checkpoint_step = attempt.last_checkpoint;
    if (latest == nullptr) return;
    set_latest(*latest, attempt.detector.judgement(), values);
    set_groups(*latest, attempt, values);
  });
}

}  // namespace gradwarden::ingest
