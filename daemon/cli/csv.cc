#include "daemon/cli/csv.h"

#include <charconv>
#include <cmath>

#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

std::string exact_if(bool present, double value) { return present ? exact(value) : std::string(); }

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
  for (const std::string& id : report.batch_ids()) {
    if (!joined.empty()) joined += ' ';
    joined += id;
  }
  return joined;
}

}  // namespace

std::string exact(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[40];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}

std::string csv_heading() {
  return "attempt,step,time_unix_ns,loss,grad_norm,clip_coefficient,decision,reason,lr,loss_scale,"
         "rolling_mean,threshold,nan_count,inf_count,zero_count,skipped,batch_ids\n";
}

std::string csv_line(const std::string& attempt, const v1::Report& r) {
  const std::string columns[] = {quoted(attempt),
                                 std::to_string(r.step()),
                                 std::to_string(r.time_unix_ns()),
                                 exact_if(r.has_loss(), r.loss()),
                                 exact(r.grad_norm()),
                                 exact(r.clip_coefficient()),
                                 enum_word(*v1::Decision_descriptor(), r.decision()),
                                 enum_word(*v1::Reason_descriptor(), r.reason()),
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
  for (const std::string& column : columns) {
    if (&column != columns) line += ',';
    line += column;
  }
  return line + '\n';
}

}  // namespace gradwarden::cli
