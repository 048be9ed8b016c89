#include <algorithm>
#include <cmath>
#include <vector>

#include "daemon/cli/commands.h"
#include "daemon/cli/event_text.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/plot.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

std::size_t plot_columns() { return terminal_width() - kPlotMargin; }

// ---- plot ---------------------------------------------------------------------------------------

PlotColumn column_of(const v1::HistoryPoint& point) {
  PlotColumn column{
      point.first_step(), point.last_step(), 0, 0, point.non_finite_steps() != 0, ' '};
  if (point.grad_norm_max() > 0) {
    column.high = point.grad_norm_max();
    column.low = point.grad_norm_min() > 0 ? point.grad_norm_min() : column.high;
  }
  return column;
}

PlotColumn column_of(const v1::Report& report) {
  const double norm = report.grad_norm();
  const bool drawn = std::isfinite(norm) && norm > 0;
  const bool spike = report.decision() == v1::DECISION_SKIP && std::isfinite(norm);
  return {report.step(),    report.step(),        drawn ? norm : 0,
          drawn ? norm : 0, !std::isfinite(norm), spike ? '^' : ' '};
}

// ^ a spike, N something non-finite, * anything else; the first two are never hidden by the third.
char mark_of(const v1::Event& event) {
  if (event.kind() == "non_finite") return 'N';
  return event.kind() == "grad_spike" ? '^' : '*';
}

void mark_events(const std::vector<v1::Event>& events, const std::string& attempt,
                 std::vector<PlotColumn>& columns) {
  for (const v1::Event& event : events) {
    if (event.attempt() != attempt) continue;
    const std::uint64_t end = event.has_end_step() ? event.end_step() : event.peak_step();
    for (PlotColumn& column : columns) {
      const bool touches = event.start_step() <= column.last_step && end >= column.first_step;
      if (touches && (column.mark == ' ' || column.mark == '*')) column.mark = mark_of(event);
    }
  }
}

void print_plot(const std::vector<PlotColumn>& columns, const ShowOptions& options) {
  if (columns.empty()) {
    print("\nno step yet\n");
    return;
  }
  const std::string picture = plot(columns, {options.height, !options.ascii && utf8_output()});
  if (picture.empty()) {
    print("\nno grad norm to draw: none is finite and above 0\n");
    return;
  }
  const auto marks = [&](char mark) {
    return std::any_of(columns.begin(), columns.end(), [mark](const PlotColumn& column) {
      return column.mark == mark || (mark == 'N' && column.mark == ' ' && column.non_finite);
    });
  };
  std::string title = "grad norm, log axis";
  if (marks('^')) title += "; ^ spike";
  if (marks('N')) title += "; N non-finite";
  if (marks('*')) title += "; * other event";
  print('\n' + title + '\n' + picture);
}

// ---- summary ------------------------------------------------------------------------------------

std::string guard_line(const v1::GuardSettings& guard) {
  std::string line =
      guard.max_norm() > 0 ? "clips at " + number(guard.max_norm()) : "clips nothing";
  if (guard.skip_non_finite()) line += ", skips non-finite steps";
  if (guard.skip_above_rolling_mean() > 0) {
    line += ", skips above " + number(guard.skip_above_rolling_mean()) +
            " x the mean of the last " + std::to_string(guard.window()) + " accepted steps (from " +
            counted(guard.warmup(), "step") + " on)";
  }
  return line + (guard.shadow() ? "; only observes" : "");
}

std::string steps_of(const v1::AttemptSummary& attempt) {
  if (attempt.reports() == 0) return "-";
  std::string first = std::to_string(attempt.first_step());
  if (attempt.first_step() == attempt.last_step()) return first;
  return first + " to " + std::to_string(attempt.last_step());
}

void print_summary(const v1::GetRunResponse& response, bool with_events) {
  const v1::RunSummary& run = response.summary();
  const std::uint64_t now = now_unix_ns();
  std::string line = "run " + run.run() + ": ";
  if (run.reports() == 0) {
    line += "no report yet";
  } else {
    line += "step " + std::to_string(run.last_step()) + ", grad norm " + number(run.grad_norm());
    if (run.has_loss()) line += ", loss " + number(run.loss());
    line += ", " + std::to_string(run.clipped_steps()) + " clipped, " +
            std::to_string(run.skipped_steps()) + " skipped";
    if (with_events) line += ", " + counted(run.events(), "event");
  }
  line += run.finished() ? ", finished" : ", last report " + ago(run.last_report_unix_ns(), now);
  print(wrapped(line, 0, terminal_width()));
  if (run.has_last_checkpoint_step()) {
    print("last checkpoint: step " + std::to_string(run.last_checkpoint_step()) + '\n');
  }
  if (!response.attempts().empty()) {
    const v1::AttemptSummary& latest = response.attempts(response.attempts_size() - 1);
    print(wrapped("guard: " + guard_line(latest.guard()), 0, terminal_width()));
  }
  std::vector<std::vector<std::string>> rows = {
      {"ATTEMPT", "STARTED", "RANKS", "STEPS", "REPORTS", "DROPPED", "STATE"}};
  for (const v1::AttemptSummary& a : response.attempts()) {
    rows.push_back({a.attempt(), local_time(a.started_unix_ns()), std::to_string(a.world_size()),
                    steps_of(a), std::to_string(a.reports()), std::to_string(a.dropped_reports()),
                    a.finished() ? "finished" : "open"});
  }
  print('\n' +
        table(std::move(rows), terminal_width(), {"STARTED", "REPORTS", "RANKS", "DROPPED"}));
}

void print_events(const std::vector<v1::Event>& events, const ShowOptions& options,
                  bool with_attempt) {
  if (events.empty()) {
    print("\nno events\n");
    return;
  }
  const std::size_t shown = std::min<std::size_t>(events.size(), options.events);
  print(shown == events.size()
            ? "\nevents\n"
            : "\nthe last " + std::to_string(shown) + " of " + std::to_string(events.size()) +
                  " events (--events N shows more)\n");
  for (std::size_t i = events.size() - shown; i < events.size(); ++i) {
    print(event_block(events[i], with_attempt, terminal_width()));
  }
}

int print_json(const v1::GetRunResponse& response, const std::vector<v1::Event>& events) {
  Json out = to_json(response);
  out["events"] = Json::array();
  for (const v1::Event& event : events) out["events"].push_back(to_json(event));
  print(to_text(out, 2) + '\n');
  return finish_output(kOk);
}

// ---- sources ------------------------------------------------------------------------------------

int show_file(const ShowOptions& options) {
  std::vector<PlotColumn> steps;
  std::string drawn;
  v1::GetRunResponse contents;
  const auto take = [&](const v1::HistoryChunk& chunk) {
    if (chunk.attempt() != drawn) steps.clear();  // the latest attempt is drawn
    drawn = chunk.attempt();
    for (const v1::Report& report : chunk.reports()) steps.push_back(column_of(report));
    return true;
  };
  if (!read_history_file(options.run, options.attempt, take, &contents)) return kNotFound;
  if (options.json) return print_json(contents, {});
  print_summary(contents, /*with_events=*/false);
  print_plot(joined(steps, plot_columns()), options);
  return finish_output(kOk);
}

}  // namespace

int show_command(QueryClient& client, const ShowOptions& options) {
  if (is_history_file(options.run)) return show_file(options);
  v1::GetRunResponse response;
  grpc::Status status = client.get_run(options.run, &response);
  if (!status.ok()) return client.explain(status);
  std::vector<v1::Event> events;
  status = client.all_events(options.run, options.attempt, &events);
  if (!status.ok()) return client.explain(status);
  if (options.json) return print_json(response, events);

  v1::StreamHistoryRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt.empty() ? response.summary().latest_attempt()
                                              : options.attempt);
  request.set_max_points(static_cast<std::uint32_t>(plot_columns()));
  std::vector<PlotColumn> columns;
  status = client.stream_history(request, [&](const v1::HistoryChunk& chunk) {
    for (const v1::HistoryPoint& point : chunk.points()) columns.push_back(column_of(point));
    return true;
  });
  if (!status.ok()) return client.explain(status);
  mark_events(events, request.attempt(), columns);
  print_summary(response, /*with_events=*/true);
  print_plot(columns, options);
  print_events(events, options, response.attempts_size() > 1);
  return finish_output(kOk);
}

}  // namespace gradwarden::cli
