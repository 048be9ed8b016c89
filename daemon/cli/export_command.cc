#include <string>

#include "daemon/cli/commands.h"
#include "daemon/cli/csv.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/output.h"
#include "daemon/cli/query_client.h"

namespace gradwarden::cli {
namespace {

std::string json_line(const std::string& attempt, const v1::Report& report) {
  Json out = {{"attempt", attempt}};
  out.update(to_json(report));
  return to_text(out) + '\n';
}

}  // namespace

int export_command(QueryClient& client, const ExportOptions& options) {
  const bool csv = options.format == ExportFormat::kCsv;
  bool headed = !csv;  // the heading waits for the first answer: an unknown run prints nothing
  const auto head = [&] {
    if (!headed) print(csv_heading());
    headed = true;
  };
  const auto take = [&](const v1::HistoryChunk& chunk) {
    head();
    bool wanted = true;
    for (const v1::Report& report : chunk.reports()) {
      const bool after = options.last_step != 0 && report.step() > options.last_step;
      if (!wanted || report.step() < options.first_step || after) continue;
      wanted = print(csv ? csv_line(chunk.attempt(), report) : json_line(chunk.attempt(), report));
    }
    return wanted;
  };
  if (is_history_file(options.run)) {
    v1::GetRunResponse contents;
    if (!read_history_file(options.run, options.attempt, take, &contents)) return kNotFound;
    head();
    return finish_output(kOk);
  }
  v1::StreamHistoryRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt);
  request.set_first_step(options.first_step);
  request.set_last_step(options.last_step);
  const grpc::Status status = client.stream_history(request, take);
  if (status.ok()) head();
  return finish_output(client.explain(status));
}

}  // namespace gradwarden::cli
