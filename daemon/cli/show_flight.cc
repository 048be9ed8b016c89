#include <cstdio>
#include <string>

#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/flight_text.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"
#include "proto/limits.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kMostTensors = 20;

int not_found(const std::string& what) {
  std::fprintf(stderr, "gradwarden: %s\n", what.c_str());
  return kNotFound;
}

// The recording is wanted, and not one nearer to the step was found before it in this attempt.
bool better(const ShowOptions& options, const v1::HistoryChunk& chunk, const v1::Report& report,
            const v1::GetFlightResponse& best) {
  if (report.flight().steps().empty()) return false;
  if (options.rank && chunk.rank() != *options.rank) return false;
  if (!options.step) return true;  // the last one
  const bool holds =
      report.step() >= *options.step && report.step() - *options.step < limits::kMaxFlightSteps;
  return holds && (best.attempt() != chunk.attempt() || best.flight().steps().empty() ||
                   report.step() < best.step());
}

int print_flight(const ShowOptions& options, const std::string& run,
                 const v1::GetFlightResponse& response) {
  if (options.json) {
    print(to_text(to_json(response), 2) + '\n');
    return finish_output(kOk);
  }
  const v1::FlightRecording& flight = response.flight();
  if (flight.steps().empty()) return not_found("the flight recording holds no step");
  int at = recorded_step(flight, response.step()).value_or(flight.steps_size() - 1);
  if (options.step) {
    const auto asked = recorded_step(flight, *options.step);
    if (!asked) {
      return not_found("step " + std::to_string(*options.step) +
                       " is not in the recording, which has steps " +
                       std::to_string(flight.steps(0).step()) + " to " +
                       std::to_string(flight.steps(flight.steps_size() - 1).step()));
    }
    at = *asked;
  }
  print(flight_text(response, run, at, kMostTensors, terminal_width()));
  return finish_output(kOk);
}

int show_flight_of_file(const ShowOptions& options) {
  v1::GetFlightResponse response;
  v1::GetRunResponse contents;
  const auto take = [&](const v1::HistoryChunk& chunk) {
    for (const v1::Report& report : chunk.reports()) {
      if (!better(options, chunk, report, response)) continue;
      response.set_attempt(chunk.attempt());
      response.set_rank(chunk.rank());
      response.set_step(report.step());
      *response.mutable_flight() = report.flight();
    }
    return true;
  };
  if (!read_history_file(options.run, options.attempt, take, &contents)) return kNotFound;
  if (!response.has_flight()) {
    return not_found(options.run +
                     " has no such flight recording; a reporter adds one to an event");
  }
  return print_flight(options, contents.summary().run(), response);
}

}  // namespace

int show_flight_command(QueryClient& client, const ShowOptions& options) {
  if (is_history_file(options.run)) return show_flight_of_file(options);
  v1::GetFlightRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt);
  if (options.step) request.set_step(*options.step);
  if (options.rank) request.set_rank(static_cast<std::uint32_t>(*options.rank));
  v1::GetFlightResponse response;
  const grpc::Status status = client.get_flight(request, &response);
  return status.ok() ? print_flight(options, options.run, response) : client.explain(status);
}

}  // namespace gradwarden::cli
