#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

// After so long without a report a run that never said goodbye is not called running.
constexpr std::uint64_t kSilentAfterNs = 600ull * 1'000'000'000;

std::string state_of(const v1::RunSummary& run, std::uint64_t now) {
  if (run.finished()) return "finished";
  if (run.reports() == 0) return "no report yet";
  if (run.last_report_unix_ns() + kSilentAfterNs < now) return "silent";
  return run.open_events() != 0 ? "event open" : "running";
}

std::vector<std::string> row_of(const v1::RunSummary& run, std::uint64_t now) {
  const bool any = run.reports() != 0;
  return {run.run(),
          std::to_string(run.attempts()),
          any ? std::to_string(run.last_step()) : "-",
          any ? number(run.grad_norm()) : "-",
          run.has_loss() ? number(run.loss()) : "-",
          std::to_string(run.clipped_steps()),
          std::to_string(run.skipped_steps()),
          run.has_last_checkpoint_step() ? std::to_string(run.last_checkpoint_step()) : "-",
          std::to_string(run.events()),
          ago(run.last_report_unix_ns(), now),
          state_of(run, now)};
}

}  // namespace

int runs_command(QueryClient& client, bool json) {
  v1::ListRunsResponse response;
  const grpc::Status status = client.list_runs(&response);
  if (!status.ok()) return client.explain(status);
  if (json) {
    Json out = {{"runs", Json::array()}};
    for (const v1::RunSummary& run : response.runs()) out["runs"].push_back(to_json(run));
    print(to_text(out, 2) + '\n');
    return finish_output(kOk);
  }
  if (response.runs().empty()) {
    print("no runs yet; point a trainer's reporter at this daemon\n");
    return finish_output(kOk);
  }
  const std::uint64_t now = now_unix_ns();
  std::vector<std::vector<std::string>> rows = {{"RUN", "ATTEMPTS", "STEP", "GRAD NORM", "LOSS",
                                                 "CLIPPED", "SKIPPED", "CHECKPOINT", "EVENTS",
                                                 "LAST REPORT", "STATE"}};
  for (const v1::RunSummary& run : response.runs()) rows.push_back(row_of(run, now));
  print(table(std::move(rows), terminal_width(),
              {"ATTEMPTS", "CLIPPED", "CHECKPOINT", "SKIPPED", "LOSS", "LAST REPORT", "GRAD NORM",
               "STEP"}));
  return finish_output(kOk);
}

}  // namespace gradwarden::cli
