#include <cstdio>
#include <utility>
#include <vector>

#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/step_text.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

// A step may be in several attempts.
using Found = std::vector<std::pair<std::string, v1::Report>>;

v1::AttemptSummary attempt_of(const v1::GetRunResponse& contents, const std::string& name) {
  for (const v1::AttemptSummary& attempt : contents.attempts()) {
    if (attempt.attempt() == name) return attempt;
  }
  return {};
}

int print_steps(const ShowOptions& options, const Found& found,
                const v1::GetRunResponse& contents) {
  if (found.empty()) {
    std::fprintf(
        stderr,
        "gradwarden: %s has no report of step %llu; `gradwarden show %s` says which steps it has\n",
        options.run.c_str(), static_cast<unsigned long long>(*options.step), options.run.c_str());
    return kNotFound;
  }
  Json out = {{"reports", Json::array()}};
  for (const auto& [attempt, report] : found) {
    if (!options.json) {
      print(step_text(report, attempt_of(contents, attempt), terminal_width()));
      continue;
    }
    Json one = {{"attempt", attempt}};
    one.update(to_json(report));
    out["reports"].push_back(std::move(one));
  }
  if (options.json) print(to_text(out, 2) + '\n');
  return finish_output(kOk);
}

}  // namespace

int show_step_command(QueryClient& client, const ShowOptions& options) {
  Found found;
  const auto take = [&](const v1::HistoryChunk& chunk) {
    for (const v1::Report& report : chunk.reports()) {
      if (report.step() == *options.step) found.emplace_back(chunk.attempt(), report);
    }
    return true;
  };
  v1::GetRunResponse contents;
  if (is_history_file(options.run)) {
    if (!read_history_file(options.run, options.attempt, take, &contents)) return kNotFound;
    return print_steps(options, found, contents);
  }
  grpc::Status status = client.get_run(options.run, &contents);
  if (!status.ok()) return client.explain(status);
  v1::StreamHistoryRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt);
  request.set_first_step(*options.step);
  request.set_last_step(*options.step == 0 ? 1 : *options.step);  // 0 would mean to the end
  status = client.stream_history(request, take);
  return status.ok() ? print_steps(options, found, contents) : client.explain(status);
}

}  // namespace gradwarden::cli
