#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "daemon/replay/number_text.h"
#include "daemon/replay/readers.h"

namespace gradwarden::replay {
namespace {

using nlohmann::json;

constexpr std::size_t kMostGroups = 4096;

std::optional<double> number(const json& value) {
  if (value.is_number()) return value.get<double>();
  return value.is_string() ? parse_number(value.get_ref<const std::string&>()) : std::nullopt;
}

std::optional<double> number(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? std::nullopt : number(*found);
}

std::string word(const json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

std::uint64_t count(const json& object, const char* key) {
  return to_step(number(object, key).value_or(0)).value_or(0);
}

std::vector<double> numbers(const json& object, const char* key) {
  std::vector<double> values;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return values;
  for (const json& value : *found) {
    values.push_back(number(value).value_or(std::numeric_limits<double>::quiet_NaN()));
  }
  return values;
}

std::vector<std::string> words(const json& object, const char* key) {
  std::vector<std::string> values;
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return values;
  for (const json& value : *found) {
    if (value.is_string()) values.push_back(value.get<std::string>());
  }
  return values;
}

std::optional<LogRow> row_of(const json& report) {
  LogRow row;
  row.step = to_step(number(report, "step").value_or(-1));
  if (!row.step) return std::nullopt;
  row.loss = number(report, "loss");
  row.grad_norm = number(report, "grad_norm");
  row.learning_rate = number(report, "learning_rate");
  row.loss_scale = number(report, "loss_scale");
  const double threshold = number(report, "clip_threshold").value_or(0);
  if (threshold > 0) {
    row.clip_threshold = threshold;
    row.clipped = number(report, "clip_coefficient").value_or(1) < 1;
  }
  const auto shadow = report.find("shadow");
  const bool shadowed = shadow != report.end() && shadow->is_boolean() && shadow->get<bool>();
  row.skipped = word(report, "decision") == "skip" && !shadowed;
  row.non_finite_count = count(report, "nan_count") + count(report, "inf_count");
  if (word(report, "reason") == "loss_scale_overflow") row.overflows = 1;
  row.group_norms = numbers(report, "group_norms");
  row.local_norms = numbers(report, "local_norms");
  row.batch_ids = words(report, "batch_ids");
  return row;
}

}  // namespace

bool looks_like_export(std::string_view bytes) {
  const std::optional<Line> line = next_line(bytes);
  return line && line->text.substr(0, 1) == "{" &&
         line->text.find("\"decision\":") != std::string_view::npos &&
         line->text.find("\"grad_norm\":") != std::string_view::npos;
}

LogContent read_export(std::string_view bytes) {
  LogContent content;
  content.format = "gradwarden export";
  while (const std::optional<Line> line = next_line(bytes)) {
    if (trimmed(line->text).empty()) continue;
    const json report = json::parse(line->text, nullptr, /*allow_exceptions=*/false);
    std::optional<LogRow> row;
    if (report.is_object()) row = row_of(report);
    if (!row || row->group_norms.size() > kMostGroups) {
      ++content.unreadable;
      continue;
    }
    if (const std::vector<std::string> groups = words(report, "groups"); !groups.empty()) {
      content.groups = groups;
    }
    content.rows.push_back(*std::move(row));
  }
  return content;
}

}  // namespace gradwarden::replay
