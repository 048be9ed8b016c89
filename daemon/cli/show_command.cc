#include <algorithm>
#include <cmath>
#include <cstdio>

#include "daemon/cli/commands.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/plot.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr int kAxisAndMargin = 12;

PlotColumn column_of(const v1::HistoryPoint& point) {
  PlotColumn column{
      point.first_step(), point.last_step(), 0, 0, point.non_finite_steps() != 0, ' '};
  if (point.grad_norm_max() > 0) {
    column.high = point.grad_norm_max();
    column.low = point.grad_norm_min() > 0 ? point.grad_norm_min() : column.high;
  }
  return column;
}

void add_report(const v1::Report& report, PlotColumn& column) {
  const double norm = report.grad_norm();
  column.last_step = report.step();
  if (!std::isfinite(norm)) column.non_finite = true;
  if (!std::isfinite(norm) || norm <= 0) return;
  column.low = column.low > 0 ? std::min(column.low, norm) : norm;
  column.high = std::max(column.high, norm);
}

// One column for every `stride` reports.
std::vector<PlotColumn> columns_of(const std::vector<v1::Report>& reports, std::size_t width) {
  const std::size_t stride = std::max<std::size_t>(1, (reports.size() + width - 1) / width);
  std::vector<PlotColumn> columns;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    if (i % stride == 0) {
      columns.push_back({reports[i].step(), reports[i].step(), 0, 0, false, ' '});
    }
    add_report(reports[i], columns.back());
  }
  return columns;
}

// ^ a spike, N something non-finite, * anything else; the first two are never hidden by the third.
char mark_of(const v1::Event& event) {
  if (event.kind() == "non_finite") return 'N';
  return event.kind() == "grad_spike" ? '^' : '*';
}

void mark_events(const google::protobuf::RepeatedPtrField<v1::Event>& events,
                 std::vector<PlotColumn>& columns) {
  for (const v1::Event& event : events) {
    const std::uint64_t end = event.has_end_step() ? event.end_step() : event.peak_step();
    for (PlotColumn& column : columns) {
      const bool touches = event.start_step() <= column.last_step && end >= column.first_step;
      if (touches && (column.mark == ' ' || column.mark == '*')) column.mark = mark_of(event);
    }
  }
}

void print_plot(std::vector<PlotColumn> columns, const ShowOptions& options,
                const google::protobuf::RepeatedPtrField<v1::Event>& events) {
  mark_events(events, columns);
  const std::string picture = plot(columns, {options.height, !options.ascii && utf8_output()});
  if (picture.empty()) {
    std::puts("\nno finite grad norm to draw");
    return;
  }
  std::printf("\ngrad norm (log axis; ^ spike, N non-finite, * other event)\n%s", picture.c_str());
}

void print_summary(const v1::GetRunResponse& response) {
  const v1::RunSummary& run = response.summary();
  std::printf(
      "run %s: %llu reports to step %llu, %llu clipped, %llu skipped, %llu events, %s\n",
      run.run().c_str(), static_cast<unsigned long long>(run.reports()),
      static_cast<unsigned long long>(run.last_step()),
      static_cast<unsigned long long>(run.clipped_steps()),
      static_cast<unsigned long long>(run.skipped_steps()),
      static_cast<unsigned long long>(run.events()),
      run.finished() ? "finished" : ("last report " + ago(run.last_report_unix_ns())).c_str());
  std::vector<std::vector<std::string>> rows = {
      {"ATTEMPT", "STARTED", "RANKS", "REPORTS", "STEPS", "DROPPED", "STATE"}};
  for (const v1::AttemptSummary& a : response.attempts()) {
    rows.push_back({a.attempt(), local_time(a.started_unix_ns()), std::to_string(a.world_size()),
                    std::to_string(a.reports()),
                    std::to_string(a.first_step()) + "-" + std::to_string(a.last_step()),
                    std::to_string(a.dropped_reports()), a.finished() ? "finished" : "open"});
  }
  std::fputs(table(rows).c_str(), stdout);
}

void print_events(const google::protobuf::RepeatedPtrField<v1::Event>& events) {
  std::puts(events.empty() ? "\nno events" : "\nevents");
  for (const v1::Event& event : events) {
    std::printf("  %s\n", event_line(event, false).c_str());
    for (const std::string& evidence : event.evidence())
      std::printf("      %s\n", evidence.c_str());
  }
}

int show_file(const ShowOptions& options) {
  std::vector<v1::Report> reports;
  const bool read =
      read_history_file(options.run, options.attempt, [&](const v1::HistoryChunk& chunk) {
        reports.insert(reports.end(), chunk.reports().begin(), chunk.reports().end());
        return true;
      });
  if (!read) return kNotFound;
  std::printf("%s: %zu reports\n", options.run.c_str(), reports.size());
  const auto width = static_cast<std::size_t>(std::max(20, terminal_width() - kAxisAndMargin));
  print_plot(columns_of(reports, width), options, {});
  return kOk;
}

}  // namespace

int show_command(QueryClient& client, const ShowOptions& options) {
  if (is_history_file(options.run)) return show_file(options);
  v1::GetRunResponse response;
  grpc::Status status = client.get_run(options.run, &response);
  if (!status.ok()) return client.explain(status);

  v1::ListEventsRequest wanted;
  wanted.set_run(options.run);
  wanted.set_attempt(options.attempt);
  v1::ListEventsResponse events;
  status = client.list_events(wanted, &events);
  if (!status.ok()) return client.explain(status);
  if (options.json) {
    nlohmann::ordered_json out = to_json(response);
    out["events"] = nlohmann::ordered_json::array();
    for (const v1::Event& event : events.events()) out["events"].push_back(to_json(event));
    std::printf("%s\n", out.dump(2).c_str());
    return kOk;
  }

  v1::StreamHistoryRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt.empty() ? response.summary().latest_attempt()
                                              : options.attempt);
  request.set_max_points(
      static_cast<std::uint32_t>(std::max(20, terminal_width() - kAxisAndMargin)));
  std::vector<PlotColumn> columns;
  status = client.stream_history(request, [&](const v1::HistoryChunk& chunk) {
    for (const v1::HistoryPoint& point : chunk.points()) columns.push_back(column_of(point));
    return true;
  });
  if (!status.ok()) return client.explain(status);
  google::protobuf::RepeatedPtrField<v1::Event> shown;
  for (const v1::Event& event : events.events()) {
    if (event.attempt() == request.attempt()) *shown.Add() = event;
  }
  print_summary(response);
  print_plot(std::move(columns), options, shown);
  print_events(events.events());
  return kOk;
}

}  // namespace gradwarden::cli
