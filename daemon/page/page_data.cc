#include "daemon/page/page_data.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>
#include <vector>

#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/names.h"
#include "daemon/page/rank_choice.h"
#include "daemon/page/report_sampler.h"
#include "daemon/query/history_cursor.h"
#include "daemon/query/run_summary.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::page {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint32_t kMaxPoints = 4000;
// Beyond so many steps, points; below, each step with all that it says.
constexpr std::uint64_t kMaxSteps = 3000;
constexpr std::size_t kSamples = 200;
constexpr std::size_t kColumns = 160;
constexpr std::size_t kMaxRows = 512;
constexpr double kNanosecondsPerMillisecond = 1e6;

std::string text_of(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

double milliseconds(std::uint64_t unix_ns) {
  return std::floor(static_cast<double>(unix_ns) / kNanosecondsPerMillisecond);
}

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

// The attempt that is meant, and the part of its steps.
struct Found {
  store::Attempt attempt;
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  bool any() const { return attempt.progress.step_reports != 0 && first <= last; }
};

absl::StatusOr<Found> find(store::StoreReader& reader, const Range& range) {
  const absl::StatusOr<store::RunRow> run = query::find_run(reader, range.run);
  if (!run.ok()) return run.status();
  absl::StatusOr<std::vector<store::Attempt>> attempts =
      query::find_attempts(reader, *run, range.attempt);
  if (!attempts.ok()) return attempts.status();
  if (attempts->empty()) return absl::NotFoundError("run \"" + range.run + "\" has no attempt yet");
  Found found;
  found.attempt = std::move(attempts->back());
  const store::AttemptProgress& progress = found.attempt.progress;
  found.first = std::max(range.first, progress.first_step);
  found.last = range.last == 0 ? progress.last_step : std::min(range.last, progress.last_step);
  return found;
}

// Columns of an object, grown row by row.
class Columns {
 public:
  explicit Columns(Json& object) : object_(object) {}
  void add(const char* name, Json value) {
    Json& column = object_[name];
    if (column.is_null()) column = Json::array();
    column.push_back(std::move(value));
  }

 private:
  Json& object_;
};

void add_report(Columns& columns, const v1::Report& report) {
  columns.add("step", report.step());
  columns.add("norm", number(report.grad_norm()));
  columns.add("mean", report.rolling_mean() > 0 ? number(report.rolling_mean()) : Json());
  columns.add("threshold", report.threshold() > 0 ? number(report.threshold()) : Json());
  columns.add("loss", report.has_loss() ? number(report.loss()) : Json());
  columns.add("rate", report.has_learning_rate() ? number(report.learning_rate()) : Json());
  columns.add("scale", report.has_loss_scale() ? number(report.loss_scale()) : Json());
  columns.add("clip", number(report.clip_coefficient()));
  const bool acted = !report.shadow();
  columns.add("clipped", acted && report.decision() == v1::DECISION_CLIP ? 1 : 0);
  columns.add("skipped", acted && report.decision() == v1::DECISION_SKIP ? 1 : 0);
  columns.add("non_finite", std::isfinite(report.grad_norm()) ? 0 : 1);
  columns.add("reason", ingest::reason_name(report.reason()));
}

void add_point(Columns& columns, const v1::HistoryPoint& point) {
  columns.add("step", point.first_step());
  columns.add("last", point.last_step());
  columns.add("norm_min", number(point.grad_norm_min()));
  columns.add("norm_max", number(point.grad_norm_max()));
  columns.add("norm", number(point.grad_norm_mean()));
  columns.add("loss_min", point.has_loss_min() ? number(point.loss_min()) : Json());
  columns.add("loss_max", point.has_loss_max() ? number(point.loss_max()) : Json());
  columns.add("clipped", point.clipped_steps());
  columns.add("skipped", point.skipped_steps());
  columns.add("non_finite", point.non_finite_steps());
}

// What points do not keep, at some of the steps.
absl::Status add_samples(store::StoreReader& reader, const Found& found, Json& out) {
  Json samples = Json::object();
  Columns columns(samples);
  absl::Status status = visit_samples(
      reader, found.attempt.row.id, even_steps(found.first, found.last, kSamples), found.last,
      [&columns](const v1::Report& report) { add_report(columns, report); });
  out["samples"] = std::move(samples);
  return status;
}

Json event_json(const v1::Event& event) {
  Json out = {{"id", event.id()},
              {"revision", event.revision()},
              {"kind", event.kind()},
              {"severity", ingest::severity_name(event.severity())},
              {"attempt", event.attempt()},
              {"start", event.start_step()},
              {"peak", event.peak_step()},
              {"open", !event.has_end_step()},
              {"signal", event.signal()},
              {"value", number(event.value())},
              {"baseline", number(event.baseline())},
              {"time", milliseconds(event.start_unix_ns())},
              {"message", event.message()},
              {"cause", event.cause()},
              {"confidence", number(event.confidence())},
              {"action", event.action()},
              {"group", event.group()},
              {"tensor", event.tensor()}};
  if (event.has_end_step()) out["end"] = event.end_step();
  if (event.has_rank()) out["rank"] = event.rank();
  out["evidence"] =
      Json(std::vector<std::string>(event.evidence().begin(), event.evidence().end()));
  out["batches"] =
      Json(std::vector<std::string>(event.batch_ids().begin(), event.batch_ids().end()));
  return out;
}

std::string text_of(const std::vector<v1::Event>& events) {
  Json out = {{"events", Json::array()}};
  for (const v1::Event& event : events) out["events"].push_back(event_json(event));
  return text_of(out);
}

// Evenly apart, with the peaks of events so that no plot of samples misses what an event is about.
absl::StatusOr<std::vector<std::uint64_t>> steps_with_peaks(store::StoreReader& reader,
                                                            const Found& found) {
  if (!found.any()) return std::vector<std::uint64_t>{};
  std::vector<std::uint64_t> steps = even_steps(found.first, found.last, kColumns);
  const auto events = last_events(reader, found.attempt.row);
  if (!events.ok()) return events.status();
  std::size_t added = 0;
  for (auto event = events->rbegin(); event != events->rend() && added < kColumns; ++event) {
    const std::uint64_t peak = event->peak_step();
    if (peak < found.first || peak > found.last) continue;
    steps.push_back(peak);
    ++added;
  }
  std::sort(steps.begin(), steps.end());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

// The ranks to show: all, or those that differ most at the steps that are shown.
absl::StatusOr<std::vector<std::size_t>> ranks_to_show(store::StoreReader& reader,
                                                       const Found& found, std::size_t world_size,
                                                       const std::vector<std::uint64_t>& steps) {
  if (world_size <= kMaxRows) {
    std::vector<std::size_t> all(world_size);
    std::iota(all.begin(), all.end(), std::size_t{0});
    return all;
  }
  RankChoice choice;
  const absl::Status status = visit_samples(
      reader, found.attempt.row.id, steps, found.last, [&choice](const v1::Report& report) {
        const auto& norms =
            report.local_norms().empty() ? report.shard_norms() : report.local_norms();
        choice.observe({norms.data(), static_cast<std::size_t>(norms.size())});
      });
  if (!status.ok()) return status;
  return choice.furthest(kMaxRows);
}

// Those of the ranks; empty where nothing is.
template <typename Values>
Json column_of(const Values& values, const std::vector<std::size_t>& ranks) {
  Json column = Json::array();
  if (values.empty()) return column;
  for (const std::size_t rank : ranks) {
    const bool there = rank < static_cast<std::size_t>(values.size());
    column.push_back(there ? number(values[static_cast<int>(rank)]) : Json());
  }
  return column;
}

Json health_of(const v1::RunSummary& run) {
  Json out = {{"run", run.run()},
              {"attempts", run.attempts()},
              {"latest_attempt", run.latest_attempt()},
              {"reports", run.reports()},
              {"last_step", run.last_step()},
              {"last_report", milliseconds(run.last_report_unix_ns())},
              {"norm", number(run.grad_norm())},
              {"loss", run.has_loss() ? number(run.loss()) : Json()},
              {"events", run.events()},
              {"open_events", run.open_events()},
              {"clipped", run.clipped_steps()},
              {"skipped", run.skipped_steps()},
              {"finished", run.finished()}};
  if (run.has_last_checkpoint_step()) out["checkpoint"] = run.last_checkpoint_step();
  return out;
}

}  // namespace

absl::StatusOr<std::string> runs_json(store::StoreReader& reader) {
  const absl::StatusOr<v1::ListRunsResponse> runs = query::list_runs(reader);
  if (!runs.ok()) return runs.status();
  std::vector<const v1::RunSummary*> sorted;
  for (const v1::RunSummary& run : runs->runs()) sorted.push_back(&run);
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto* a, const auto* b) {
    return a->last_report_unix_ns() > b->last_report_unix_ns();
  });
  Json out = {{"runs", Json::array()}};
  for (const v1::RunSummary* run : sorted) out["runs"].push_back(health_of(*run));
  return text_of(out);
}

absl::StatusOr<std::string> run_json(store::StoreReader& reader, const std::string& name) {
  const absl::StatusOr<v1::GetRunResponse> run = query::get_run(reader, name);
  if (!run.ok()) return run.status();
  Json out = health_of(run->summary());
  out["attempt_list"] = Json::array();
  for (const v1::AttemptSummary& attempt : run->attempts()) {
    const v1::GuardSettings& guard = attempt.guard();
    out["attempt_list"].push_back(
        {{"attempt", attempt.attempt()},
         {"ordinal", attempt.ordinal()},
         {"started", milliseconds(attempt.started_unix_ns())},
         {"last_report", milliseconds(attempt.last_report_unix_ns())},
         {"ranks", attempt.world_size()},
         {"groups", attempt.groups_size()},
         {"reports", attempt.reports()},
         {"first_step", attempt.first_step()},
         {"last_step", attempt.last_step()},
         {"finished", attempt.finished()},
         {"dropped", attempt.dropped_reports()},
         {"host", attempt.host()},
         {"checkpoints", std::vector<std::uint64_t>(attempt.checkpoint_steps().begin(),
                                                    attempt.checkpoint_steps().end())},
         {"max_norm", guard.max_norm()},
         {"skip_above", guard.skip_above_rolling_mean()},
         {"window", guard.window()},
         {"shadow", guard.shadow()}});
  }
  return text_of(out);
}

absl::StatusOr<std::string> history_json(store::StoreReader& reader, const Range& range) {
  const absl::StatusOr<Found> found = find(reader, range);
  if (!found.ok()) return found.status();
  const bool every = found->last - found->first < kMaxSteps;
  Json out = {{"attempt", found->attempt.row.name},
              {"kind", every ? "steps" : "points"},
              {"first_step", found->attempt.progress.first_step},
              {"last_step", found->attempt.progress.last_step}};
  if (!found->any()) return text_of(out);
  v1::StreamHistoryRequest request;
  request.set_run(range.run);
  request.set_attempt(found->attempt.row.name);
  request.set_first_step(found->first);
  request.set_last_step(found->last);
  if (!every) request.set_max_points(std::clamp(range.points, 10U, kMaxPoints));
  query::HistoryCursor cursor(request);
  if (absl::Status status = cursor.open(reader); !status.ok()) return status;
  Columns columns(out);
  v1::HistoryChunk chunk;
  while (true) {
    const absl::StatusOr<bool> more = cursor.next(reader, chunk);
    if (!more.ok()) return more.status();
    if (!*more) break;
    for (const v1::Report& report : chunk.reports()) add_report(columns, report);
    for (const v1::HistoryPoint& point : chunk.points()) add_point(columns, point);
  }
  if (!every) {
    if (absl::Status status = add_samples(reader, *found, out); !status.ok()) return status;
  }
  return text_of(out);
}

absl::StatusOr<std::string> events_json(store::StoreReader& reader, const Range& range) {
  const absl::StatusOr<Found> found = find(reader, range);
  if (!found.ok()) return found.status();
  const auto events = last_events(reader, found->attempt.row);
  if (!events.ok()) return events.status();
  return text_of(*events);
}

absl::StatusOr<std::string> new_events_json(store::StoreReader& reader, const Range& range,
                                            EventCursor& cursor) {
  const absl::StatusOr<Found> found = find(reader, range);
  if (!found.ok()) return found.status();
  EventCursor next = cursor;  // where reading fails, what was read is told at the next turn
  const auto events = next.news(reader, found->attempt.row);
  if (!events.ok()) return events.status();
  cursor = std::move(next);
  return events->empty() ? std::string() : text_of(*events);
}

absl::StatusOr<std::string> groups_json(store::StoreReader& reader, const Range& range) {
  const absl::StatusOr<Found> found = find(reader, range);
  if (!found.ok()) return found.status();
  const auto steps = steps_with_peaks(reader, *found);
  if (!steps.ok()) return steps.status();
  v1::Hello hello;
  hello.ParseFromString(found->attempt.row.hello);
  const auto rows = std::min<std::size_t>(static_cast<std::size_t>(hello.groups_size()), kMaxRows);
  Json out = {{"attempt", found->attempt.row.name},
              {"groups", std::vector<std::string>(
                             hello.groups().begin(),
                             hello.groups().begin() + static_cast<std::ptrdiff_t>(rows))},
              {"left_out", static_cast<std::size_t>(hello.groups_size()) - rows},
              {"step", Json::array()},
              {"norms", Json::array()}};
  const auto add = [&](const v1::Report& report) {
    if (report.group_norms_size() != hello.groups_size()) return;
    out["step"].push_back(report.step());
    Json column = Json::array();  // one entry per group
    for (std::size_t i = 0; i < rows; ++i) {
      column.push_back(number(report.group_norms(static_cast<int>(i))));
    }
    out["norms"].push_back(std::move(column));
  };
  const absl::Status status =
      visit_samples(reader, found->attempt.row.id, *steps, found->last, add);
  if (!status.ok()) return status;
  return text_of(out);
}

absl::StatusOr<std::string> ranks_json(store::StoreReader& reader, const Range& range) {
  const absl::StatusOr<Found> found = find(reader, range);
  if (!found.ok()) return found.status();
  const auto steps = steps_with_peaks(reader, *found);
  if (!steps.ok()) return steps.status();
  v1::Hello hello;
  hello.ParseFromString(found->attempt.row.hello);
  const auto ranks = ranks_to_show(reader, *found, hello.world_size(), *steps);
  if (!ranks.ok()) return ranks.status();
  Json out = {{"attempt", found->attempt.row.name},
              {"ranks", *ranks},
              {"world_size", hello.world_size()},
              {"step", Json::array()},
              {"local", Json::array()},
              {"shard", Json::array()}};
  const auto add = [&](const v1::Report& report) {
    if (report.local_norms_size() == 0 && report.shard_norms_size() == 0) return;
    out["step"].push_back(report.step());
    out["local"].push_back(column_of(report.local_norms(), *ranks));
    out["shard"].push_back(column_of(report.shard_norms(), *ranks));
  };
  const absl::Status status =
      visit_samples(reader, found->attempt.row.id, *steps, found->last, add);
  if (!status.ok()) return status;
  return text_of(out);
}

}  // namespace gradwarden::page
