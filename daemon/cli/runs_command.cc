#include <cstdio>

#include "daemon/cli/commands.h"
#include "daemon/cli/json.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {

int runs_command(QueryClient& client, bool json) {
  v1::ListRunsResponse response;
  const grpc::Status status = client.list_runs(&response);
  if (!status.ok()) return client.explain(status);
  if (json) {
    nlohmann::ordered_json out = {{"runs", nlohmann::ordered_json::array()}};
    for (const v1::RunSummary& run : response.runs()) out["runs"].push_back(to_json(run));
    std::printf("%s\n", out.dump(2).c_str());
    return kOk;
  }
  if (response.runs().empty()) {
    std::puts("no runs yet; point a trainer's reporter at this daemon");
    return kOk;
  }
  std::vector<std::vector<std::string>> rows = {{"RUN", "ATTEMPTS", "STEP", "GRAD NORM", "LOSS",
                                                 "CLIPPED", "SKIPPED", "EVENTS", "LAST REPORT",
                                                 "STATE"}};
  for (const v1::RunSummary& run : response.runs()) {
    rows.push_back({run.run(), std::to_string(run.attempts()), std::to_string(run.last_step()),
                    number(run.grad_norm()), run.has_loss() ? number(run.loss()) : "-",
                    std::to_string(run.clipped_steps()), std::to_string(run.skipped_steps()),
                    std::to_string(run.events()), ago(run.last_report_unix_ns()),
                    run.finished()           ? "finished"
                    : run.open_events() != 0 ? "event open"
                                             : "running"});
  }
  std::fputs(table(rows).c_str(), stdout);
  return kOk;
}

}  // namespace gradwarden::cli
