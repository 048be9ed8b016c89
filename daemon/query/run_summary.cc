#include "daemon/query/run_summary.h"

#include <algorithm>
#include <string>
#include <utility>

namespace gradwarden::query {
namespace {

constexpr std::uint32_t kMaxEventsPerAnswer = 1000;
// Of all attempts together, so that an answer stays far below gRPC's 4 MiB.
constexpr std::uint32_t kCheckpointsPerAnswer = 100'000;
constexpr std::uint32_t kFlightRanksPerAnswer = 64;

v1::AttemptSummary summarize_attempt(const store::Attempt& attempt) {
  const store::AttemptProgress& progress = attempt.progress;
  v1::AttemptSummary summary;
  summary.set_attempt(attempt.row.name);
  summary.set_ordinal(attempt.row.ordinal);
  summary.set_started_unix_ns(attempt.row.started_ns);
  summary.set_last_report_unix_ns(progress.last_report_ns);
  summary.set_reports(progress.reports);
  summary.set_first_step(progress.first_step);
  summary.set_last_step(progress.last_step);
  summary.set_finished(progress.finished);
  summary.set_dropped_reports(progress.dropped);
  v1::Hello hello;
  if (hello.ParseFromString(attempt.row.hello)) {
    summary.set_world_size(hello.world_size());
    summary.mutable_groups()->Swap(hello.mutable_groups());
    *summary.mutable_guard() = hello.guard();
    summary.set_host(hello.host());
  }
  return summary;
}

absl::StatusOr<v1::RunSummary> summarize_run(store::StoreReader& reader, const store::RunRow& run,
                                             const std::vector<store::Attempt>& attempts) {
  v1::RunSummary summary;
  summary.set_run(run.name);
  summary.set_attempts(static_cast<std::uint32_t>(attempts.size()));
  for (const store::Attempt& attempt : attempts) {
    const store::AttemptProgress& progress = attempt.progress;
    summary.set_reports(summary.reports() + progress.reports);
    summary.set_clipped_steps(summary.clipped_steps() + progress.clipped);
    summary.set_skipped_steps(summary.skipped_steps() + progress.skipped);
    summary.set_last_report_unix_ns(
        std::max(summary.last_report_unix_ns(), progress.last_report_ns));
  }
  if (!attempts.empty()) {
    const store::Attempt& latest = attempts.back();
    summary.set_latest_attempt(latest.row.name);
    summary.set_last_step(latest.progress.last_step);
    summary.set_grad_norm(latest.progress.grad_norm);
    if (latest.progress.loss) summary.set_loss(*latest.progress.loss);
    summary.set_finished(latest.progress.finished);
  }
  for (auto attempt = attempts.rbegin(); attempt != attempts.rend(); ++attempt) {
    const auto checkpoints = reader.checkpoints(attempt->row.id, 1);
    if (!checkpoints.ok()) return checkpoints.status();
    if (checkpoints->empty()) continue;
    summary.set_last_checkpoint_step(checkpoints->back());
    break;
  }
  const absl::StatusOr<store::EventCounts> counts = reader.event_counts(run.id);
  if (!counts.ok()) return counts.status();
  summary.set_events(counts->events);
  summary.set_open_events(counts->open);
  return summary;
}

}  // namespace

absl::StatusOr<store::RunRow> find_run(store::StoreReader& reader, std::string_view name) {
  const absl::StatusOr<std::optional<store::RunRow>> run = reader.run(name);
  if (!run.ok()) return run.status();
  if (*run) return **run;
  return absl::NotFoundError("run \"" + std::string(name) +
                             "\" is unknown to this daemon; `gradwarden runs` lists those it has");
}

absl::StatusOr<std::vector<store::Attempt>> find_attempts(store::StoreReader& reader,
                                                          const store::RunRow& run,
                                                          std::string_view attempt) {
  absl::StatusOr<std::vector<store::Attempt>> attempts = reader.attempts(run.id);
  if (!attempts.ok() || attempt.empty()) return attempts;
  std::erase_if(*attempts, [&](const store::Attempt& one) { return one.row.name != attempt; });
  if (!attempts->empty()) return attempts;
  return absl::NotFoundError("run \"" + run.name + "\" has no attempt \"" + std::string(attempt) +
                             "\"; `gradwarden show " + run.name + "` lists its attempts");
}

absl::StatusOr<v1::ListRunsResponse> list_runs(store::StoreReader& reader) {
  const absl::StatusOr<std::vector<store::RunRow>> runs = reader.runs();
  if (!runs.ok()) return runs.status();
  v1::ListRunsResponse response;
  for (const store::RunRow& run : *runs) {
    const absl::StatusOr<std::vector<store::Attempt>> attempts = reader.attempts(run.id);
    if (!attempts.ok()) return attempts.status();
    absl::StatusOr<v1::RunSummary> summary = summarize_run(reader, run, *attempts);
    if (!summary.ok()) return summary.status();
    *response.add_runs() = *std::move(summary);
  }
  return response;
}

absl::StatusOr<v1::GetRunResponse> get_run(store::StoreReader& reader, std::string_view name,
                                           std::uint32_t checkpoints_per_attempt) {
  const absl::StatusOr<store::RunRow> run = find_run(reader, name);
  if (!run.ok()) return run.status();
  const absl::StatusOr<std::vector<store::Attempt>> attempts = reader.attempts(run->id);
  if (!attempts.ok()) return attempts.status();
  absl::StatusOr<v1::RunSummary> summary = summarize_run(reader, *run, *attempts);
  if (!summary.ok()) return summary.status();
  v1::GetRunResponse response;
  *response.mutable_summary() = *std::move(summary);
  for (const store::Attempt& attempt : *attempts) {
    *response.add_attempts() = summarize_attempt(attempt);
  }
  std::uint32_t room = kCheckpointsPerAnswer;
  for (std::size_t i = attempts->size(); i-- > 0 && room != 0;) {  // the latest attempts first
    const auto checkpoints =
        reader.checkpoints((*attempts)[i].row.id, std::min(room, checkpoints_per_attempt));
    if (!checkpoints.ok()) return checkpoints.status();
    room -= static_cast<std::uint32_t>(checkpoints->size());
    response.mutable_attempts(static_cast<int>(i))
        ->mutable_checkpoint_steps()
        ->Add(checkpoints->begin(), checkpoints->end());
  }
  return response;
}

absl::StatusOr<v1::GetFlightResponse> get_flight(store::StoreReader& reader,
                                                 const v1::GetFlightRequest& request) {
  const absl::StatusOr<store::RunRow> run = find_run(reader, request.run());
  if (!run.ok()) return run.status();
  const auto attempts = find_attempts(reader, *run, request.attempt());
  if (!attempts.ok()) return attempts.status();
  std::optional<std::uint64_t> step;
  std::optional<std::uint32_t> rank;
  if (request.has_step()) step = request.step();
  if (request.has_rank()) rank = request.rank();
  for (auto attempt = attempts->rbegin(); attempt != attempts->rend(); ++attempt) {
    const auto flight = reader.flight(attempt->row.id, step, rank);
    if (!flight.ok()) return flight.status();
    if (!*flight) continue;
    const auto ranks = reader.flight_ranks(attempt->row.id, (*flight)->step, kFlightRanksPerAnswer);
    if (!ranks.ok()) return ranks.status();
    v1::GetFlightResponse response;
    if (!response.mutable_flight()->ParseFromString((*flight)->data)) {
      return absl::DataLossError("a stored flight recording of run \"" + run->name +
                                 "\" is damaged");
    }
    response.set_attempt(attempt->row.name);
    response.set_rank((*flight)->rank);
    response.set_step((*flight)->step);
    response.mutable_ranks()->Add(ranks->begin(), ranks->end());
    return response;
  }
  std::string what = "run \"" + run->name + "\" has no flight recording";
  if (rank) what += " of rank " + std::to_string(*rank);
  if (step) what += " that can hold step " + std::to_string(*step);
  return absl::NotFoundError(what + "; a trainer's reporter sends one with an event");
}

absl::StatusOr<v1::ListEventsResponse> list_events(store::StoreReader& reader,
                                                   const v1::ListEventsRequest& request) {
  std::int64_t run_id = 0;
  std::int64_t attempt_id = 0;
  if (request.run().empty() && !request.attempt().empty()) {
    return absl::InvalidArgumentError("attempt: \"" + request.attempt() +
                                      "\" without a run, allowed is an attempt of a named run");
  }
  if (!request.run().empty()) {
    const absl::StatusOr<store::RunRow> run = find_run(reader, request.run());
    if (!run.ok()) return run.status();
    run_id = run->id;
    if (!request.attempt().empty()) {
      const auto attempts = find_attempts(reader, *run, request.attempt());
      if (!attempts.ok()) return attempts.status();
      attempt_id = attempts->front().row.id;
    }
  }
  const std::uint32_t limit =
      request.limit() == 0 ? kMaxEventsPerAnswer : std::min(request.limit(), kMaxEventsPerAnswer);
  const auto events = reader.events(run_id, attempt_id, request.after_id(), limit);
  if (!events.ok()) return events.status();
  v1::ListEventsResponse response;
  for (const std::string& data : *events) {
    if (!response.add_events()->ParseFromString(data)) response.mutable_events()->RemoveLast();
  }
  return response;
}

}  // namespace gradwarden::query
