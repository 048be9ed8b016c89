#include "daemon/ingest/batch_processor.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <utility>

#include "daemon/ingest/event_builder.h"

namespace gradwarden::ingest {
namespace {

void acknowledge(v1::Acknowledgement& acknowledgement, std::uint64_t sequence) {
  const int size = acknowledgement.stored_size();
  if (size > 0 && acknowledgement.stored(size - 1).last() + 1 == sequence) {
    acknowledgement.mutable_stored(size - 1)->set_last(sequence);
    return;
  }
  v1::SequenceRange* range = acknowledgement.add_stored();
  range->set_first(sequence);
  range->set_last(sequence);
}

// The wire form of a ReportBatch that holds reports [first, last] of another.
std::string serialize_part(const v1::ReportBatch& batch, int first, int last) {
  std::string bytes;
  google::protobuf::io::StringOutputStream stream(&bytes);
  google::protobuf::io::CodedOutputStream out(&stream);
  constexpr std::uint32_t kReportsTag = (v1::ReportBatch::kReportsFieldNumber << 3) | 2;
  for (int i = first; i <= last; ++i) {
    const v1::Report& report = batch.reports(i);
    out.WriteTag(kReportsTag);
    out.WriteVarint32(static_cast<std::uint32_t>(report.ByteSizeLong()));
    report.SerializeWithCachedSizes(&out);
  }
  out.Trim();
  return bytes;
}

}  // namespace

Outcome BatchProcessor::process(Attempt& attempt, std::uint32_t rank, v1::ReportBatch& batch,
                                std::string bytes) {
  Outcome outcome;
  const AttemptShape shape = attempt.shape(rank);
  RankState& state = attempt.ranks[rank];
  state.last_seen_ns = context_.now_ns();
  stretches_.clear();
  std::uint64_t duplicates = 0;
  const v1::Report* latest = nullptr;
  metrics::count(context_.metrics.received, static_cast<std::uint64_t>(batch.reports_size()));
  for (int i = 0; i < batch.reports_size(); ++i) {
    v1::Report& report = *batch.mutable_reports(i);
    if (Problem problem = check_report(report, shape)) {
      v1::Rejection* rejection = outcome.acknowledgement.add_rejected();
      rejection->set_sequence(report.sequence());
      rejection->set_message(*std::move(problem));
      continue;
    }
    acknowledge(outcome.acknowledgement, report.sequence());
    if (!state.seen.insert(report.sequence())) {
      ++duplicates;
      continue;
    }
    extend_stretches(report, i, batch);
    take_flight(rank, report, *outcome.item);
    take_new(attempt, rank, report);
    ++outcome.stored;
    // What came late is not the latest step.
    if (rank == 0 && report.step() == attempt.progress.last_step) latest = &report;
  }
  metrics::count(context_.metrics.duplicate, duplicates);
  metrics::count(context_.metrics.rejected,
                 static_cast<std::uint64_t>(outcome.acknowledgement.rejected_size()));
  if (outcome.stored == 0) {
    outcome.item.reset();  // only a barrier: what it repeats may still be under way
    return outcome;
  }
  attempt.progress.last_report_ns = state.last_seen_ns;
  attempt.progress.reports += outcome.stored;
  if (rank == 0) attempt.progress.finished = false;
  write_segments(batch, rank, std::move(bytes), *outcome.item);
  publish(attempt, tally_, findings_, latest);
  close(attempt, outcome);
  return outcome;
}

Outcome BatchProcessor::finish(Attempt& attempt) {
  Outcome outcome;
  attempt.detector.finish(findings_);
  attempt.progress.finished = true;
  publish(attempt, tally_, findings_, nullptr);
  close(attempt, outcome);
  return outcome;
}

Outcome BatchProcessor::observe_time(Attempt& attempt, bool superseded) {
  Outcome outcome;
  if (superseded) {
    // What is being brought over goes on for a while: it is over when its stream is.
    const bool over = !attempt.leftover || attempt.sessions == 0;
    if (over && !attempt.event_ids.empty()) attempt.detector.finish(findings_);
  } else {
    liveness_.clear();
    for (const auto& [number, rank] : attempt.ranks) {
      liveness_.push_back({number, rank.step, rank.last_seen_ns, rank.phase == v1::PHASE_FINISHED});
    }
    const std::uint64_t reported = attempt.progress.last_report_ns;
    attempt.detector.observe_time(
        {.now_ns = context_.now_ns(),
         .last_report_ns = reported == 0 ? 0 : std::max(reported, attempt.watched_since_ns),
         .ranks = liveness_},
        findings_);
  }
  if (findings_.empty()) {
    outcome.item.reset();
    return outcome;
  }
  publish(attempt, tally_, findings_, nullptr);
  close(attempt, outcome);
  return outcome;
}

Outcome BatchProcessor::touch(Attempt& attempt) {
  Outcome outcome;
  publish(attempt, tally_, findings_, nullptr);
  close(attempt, outcome);
  return outcome;
}

// Joins the report to the stretch before it, or begins one. Reports in between that were refused or
// seen before end a stretch, as does a step back in sequence.
void BatchProcessor::extend_stretches(const v1::Report& report, int index,
                                      const v1::ReportBatch& batch) {
  const std::uint64_t step = report.step();
  if (!stretches_.empty()) {
    Stretch& last = stretches_.back();
    if (last.last_index + 1 == index &&
        batch.reports(index - 1).sequence() + 1 == report.sequence()) {
      last.last_index = index;
      last.first_step = std::min(last.first_step, step);
      last.last_step = std::max(last.last_step, step);
      return;
    }
  }
  stretches_.push_back({index, index, step, step});
}

void BatchProcessor::take_new(Attempt& attempt, std::uint32_t rank, const v1::Report& report) {
  attempt.ranks[rank].step = report.step();
  note_checkpoints(attempt, report.checkpoint_steps());
  if (rank != 0) {
    judge_other_rank(attempt, report);
    return;
  }
  add_totals(attempt, report);
  add_rollup(report);
  tally_.add(report);
  const detect::Step step = steps_.step_of(attempt, report);
  if (!attempt.detector.observe(step, findings_)) metrics::count(context_.metrics.late);
}

// A recording is large and seldom asked for: it is stored beside the report, so that who reads
// history does not read through it.
void BatchProcessor::take_flight(std::uint32_t rank, v1::Report& report,
                                 store::CommitItem& item) const {
  if (!report.has_flight()) return;
  if (report.flight().steps_size() != 0) {
    item.flights.push_back(
        {0, rank, report.sequence(), report.step(), report.flight().SerializeAsString()});
  }
  report.clear_flight();
}

void BatchProcessor::note_checkpoints(Attempt& attempt, const Steps& steps) {
  for (const std::uint64_t step : steps) {
    checkpoints_.push_back(step);
    attempt.last_checkpoint = std::max(attempt.last_checkpoint.value_or(0), step);
  }
}

void BatchProcessor::judge_other_rank(Attempt& attempt, const v1::Report& report) {
  if (report.non_finite_size() == 0) return;
  for (const detect::NonFiniteOrigin& origin : steps_.origins_of(attempt, report)) {
    attempt.detector.observe_origin(report.step(), origin, findings_);
  }
}

void BatchProcessor::add_totals(Attempt& attempt, const v1::Report& report) {
  store::AttemptProgress& progress = attempt.progress;
  const bool first = progress.step_reports == 0;
  progress.first_step = first ? report.step() : std::min(progress.first_step, report.step());
  if (first || report.step() >= progress.last_step) {
    progress.last_step = report.step();
    progress.grad_norm = report.grad_norm();
    if (report.has_loss()) progress.loss = report.loss();
  }
  ++progress.step_reports;
  progress.clipped += is_clipped(report) ? 1 : 0;
  progress.skipped += is_skipped(report) ? 1 : 0;
  progress.non_finite += is_non_finite(report) ? 1 : 0;
}

void BatchProcessor::add_rollup(const v1::Report& report) {
  const std::uint64_t bucket = report.step() / store::kBucketSteps[0];
  if (rollups_.empty() || rollups_.back().bucket != bucket) rollups_.push_back({bucket, {}});
  store::RollupSample sample;
  sample.step = report.step();
  sample.grad_norm = report.grad_norm();
  if (report.has_loss()) sample.loss = report.loss();
  sample.clipped = is_clipped(report);
  sample.skipped = is_skipped(report);
  sample.non_finite = is_non_finite(report);
  store::add(rollups_.back().rollup, sample);
}

void BatchProcessor::write_segments(const v1::ReportBatch& batch, std::uint32_t rank,
                                    std::string bytes, store::CommitItem& item) const {
  // What came as one stretch, and is stored in one piece, is stored as the bytes that came.
  const bool whole = item.flights.empty() && stretches_.size() == 1 &&
                     stretches_[0].first_index == 0 &&
                     stretches_[0].last_index + 1 == batch.reports_size();
  for (const Stretch& stretch : stretches_) {
    store::Segment& segment = item.segments.emplace_back();
    segment.rank = rank;
    segment.first_sequence = batch.reports(stretch.first_index).sequence();
    segment.last_sequence = batch.reports(stretch.last_index).sequence();
    segment.first_step = stretch.first_step;
    segment.last_step = stretch.last_step;
    if (!whole) segment.data = serialize_part(batch, stretch.first_index, stretch.last_index);
  }
  if (whole) item.segments.back().data = std::move(bytes);
}

// An incident that changed many times in a batch is stored once, as it is now.
void BatchProcessor::write_events(Attempt& attempt, Outcome& outcome) {
  for (std::size_t i = 0; i < findings_.size(); ++i) {
    const detect::Finding& finding = findings_[i];
    const std::uint64_t key = finding.incident.key;
    auto [known, fresh] = attempt.event_ids.try_emplace(key, 0);
    if (fresh) known->second = context_.last_event_id.fetch_add(1) + 1;
    const bool latest =
        std::none_of(findings_.begin() + static_cast<std::ptrdiff_t>(i) + 1, findings_.end(),
                     [key](const detect::Finding& later) { return later.incident.key == key; });
    const bool tell = finding.change != detect::Change::kUpdate;
    if (!latest && !tell) continue;
    v1::Event event =
        build_event(known->second, attempt.run_name, attempt.row.name, finding.incident);
    if (latest) {
      outcome.item->events.push_back({event.id(), event.revision(), attempt.run_id, attempt.row.id,
                                      !finding.incident.ended, event.SerializeAsString()});
    }
    if (tell) outcome.events.push_back(std::move(event));
    if (finding.incident.ended) attempt.event_ids.erase(key);
  }
}

// Completes the item from what was gathered, and leaves the scratch space empty.
void BatchProcessor::close(Attempt& attempt, Outcome& outcome) {
  store::CommitItem& item = *outcome.item;
  item.attempt_id = attempt.row.id;
  item.rollups.assign(rollups_.begin(), rollups_.end());
  rollups_.clear();
  item.checkpoints = std::move(checkpoints_);
  checkpoints_.clear();
  tally_.clear();
  write_events(attempt, outcome);
  findings_.clear();
  attempt.progress.dropped = std::max(attempt.progress.dropped, attempt.dropped);
  item.progress = attempt.progress;
  item.progress->state = attempt.save_state();
}

}  // namespace gradwarden::ingest
