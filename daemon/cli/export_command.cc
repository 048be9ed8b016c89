#include <cmath>
#include <cstdio>
#include <optional>
#include <string>

#include "daemon/cli/commands.h"
#include "daemon/cli/history_source.h"
#include "daemon/cli/json.h"
#include "daemon/cli/query_client.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr const char* kCsvHeading =
    "attempt,step,time_unix_ns,loss,grad_norm,clip_coefficient,decision,reason,lr,loss_scale,"
    "rolling_mean,threshold,nan_count,inf_count,zero_count,skipped,batch_ids";

// All digits, so that what is read again is the same number.
std::string exact(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

std::string exact_if(bool present, double value) { return present ? exact(value) : std::string(); }

// RFC 4180.
std::string quoted(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string batch_ids(const v1::Report& report) {
  std::string joined;
  for (const std::string& id : report.batch_ids()) joined += (joined.empty() ? "" : " ") + id;
  return joined;
}

void print_csv(const std::string& attempt, const v1::Report& r) {
  const std::string columns[] = {
      quoted(attempt),
      std::to_string(r.step()),
      std::to_string(r.time_unix_ns()),
      exact_if(r.has_loss(), r.loss()),
      exact(r.grad_norm()),
      exact(r.clip_coefficient()),
      enum_word(*v1::Decision_descriptor()->FindValueByNumber(r.decision())),
      enum_word(*v1::Reason_descriptor()->FindValueByNumber(r.reason())),
      exact_if(r.has_learning_rate(), r.learning_rate()),
      exact_if(r.has_loss_scale(), r.loss_scale()),
      exact(r.rolling_mean()),
      exact(r.threshold()),
      std::to_string(r.nan_count()),
      std::to_string(r.inf_count()),
      std::to_string(r.zero_count()),
      r.decision() == v1::DECISION_SKIP && !r.shadow() ? "1" : "0",
      quoted(batch_ids(r))};
  std::string line;
  for (const std::string& column : columns) line += (line.empty() ? "" : ",") + column;
  std::puts(line.c_str());
}

void print_json(const std::string& attempt, const v1::Report& report) {
  nlohmann::ordered_json out = {{"attempt", attempt}};
  out.update(to_json(report));
  std::puts(out.dump().c_str());
}

}  // namespace

int export_command(QueryClient& client, const ExportOptions& options) {
  if (options.format == ExportFormat::kCsv) std::puts(kCsvHeading);
  const auto take = [&](const v1::HistoryChunk& chunk) {
    for (const v1::Report& report : chunk.reports()) {
      const bool after = options.last_step != 0 && report.step() > options.last_step;
      if (report.step() < options.first_step || after) continue;
      if (options.format == ExportFormat::kCsv)
        print_csv(chunk.attempt(), report);
      else
        print_json(chunk.attempt(), report);
    }
    return std::ferror(stdout) == 0;  // somebody closed the pipe
  };
  if (is_history_file(options.run)) {
    return read_history_file(options.run, options.attempt, take) ? kOk : kNotFound;
  }
  v1::StreamHistoryRequest request;
  request.set_run(options.run);
  request.set_attempt(options.attempt);
  request.set_first_step(options.first_step);
  request.set_last_step(options.last_step);
  return client.explain(client.stream_history(request, take));
}

}  // namespace gradwarden::cli
