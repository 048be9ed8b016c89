#include "daemon/ingest/tally.h"

#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/names.h"
#include "daemon/ingest/step_builder.h"
#include "proto/limits.h"

namespace gradwarden::ingest {
namespace {

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
  if (tally.gradient_noise_scale) values.gradient_noise_scale = tally.gradient_noise_scale;
  for (const auto& [name, norm] : tally.signal_norms) {
    // Names come from the trainer: no more of them than one report may have.
    const bool known = values.signal_norms.count(name) != 0;
    if (known || values.signal_norms.size() < limits::kMaxSignals) values.signal_norms[name] = norm;
  }
}

void add_findings(const Attempt& attempt, const std::vector<detect::Finding>& findings,
                  metrics::RunValues& values) {
  for (const detect::Finding& finding : findings) {
    const detect::Incident& incident = finding.incident;
    if (finding.change != detect::Change::kBegin) continue;
    const auto severity = static_cast<v1::Severity>(incident.severity);
    ++values.events[{incident.kind, std::string(severity_name(severity))}];
  }
  values.open.clear();
  for (const auto& [kind, count] : values.events) values.open[kind.first] = 0;
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
  if (report.has_gradient_noise_scale()) gradient_noise_scale = report.gradient_noise_scale();
  for (const v1::SignalStatistics& signal : report.signals()) {
    signal_norms[signal.name()] = signal.norm();
  }
}

void Tally::clear() {
  skips.clear();
  signal_norms.clear();
  gradient_noise_scale.reset();
  steps = clipped = non_finite = audited_replicas = mismatches = 0;
}

void publish(Attempt& attempt, const Tally& tally, const std::vector<detect::Finding>& findings,
             const v1::Report* latest) {
  if (attempt.metrics == nullptr) return;
  attempt.metrics->update([&](metrics::RunValues& values) {
    add_tally(tally, values);
    add_findings(attempt, findings, values);
    values.last_report_ns = attempt.progress.last_report_ns;
    values.dropped = attempt.dropped;
    values.pending = attempt.pending;
    values.finished = attempt.progress.finished;
    if (attempt.last_checkpoint) values.last_checkpoint_step = attempt.last_checkpoint;
    if (latest != nullptr) set_latest(*latest, attempt.detector.judgement(), values);
  });
}

}  // namespace gradwarden::ingest
