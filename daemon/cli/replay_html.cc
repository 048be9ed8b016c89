#include "daemon/cli/replay_html.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "daemon/cli/event_text.h"
#include "daemon/cli/text.h"
#include "daemon/ingest/event_builder.h"

namespace gradwarden::cli {
namespace {

constexpr double kWidth = 960;
constexpr double kHeight = 220;
constexpr double kLeft = 70;
constexpr double kBottom = 20;
constexpr std::size_t kBuckets =
    800;  // of rows; each is drawn from its lowest to its highest value

constexpr const char* kHead =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>gradwarden "
    "replay</title>\n"
    "<style>body{font:15px sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
    "svg{background:#f7f7f7;display:block;margin:.3em 0 1em}text{font:12px sans-serif}"
    "table{border-collapse:collapse}td,th{text-align:left;vertical-align:top;padding:.3em .6em;"
    "border-bottom:1px solid #ddd}pre{white-space:pre-wrap}"
    ".info{fill:#999}.warning{fill:#e69500}.critical{fill:#d00000}"
    "td.warning{color:#a86b00}td.critical{color:#b00000;font-weight:bold}</style></head><body>\n";

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string coordinate(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

// One signal, row by row; what is not drawn (absent, not finite, not positive on a log axis) is a
// gap.
struct Axis {
  bool log = true;
  double low = 0;
  double high = 0;

  std::optional<double> position(const std::optional<double>& value) const {
    if (!value || !std::isfinite(*value) || (log && *value <= 0)) return std::nullopt;
    return log ? std::log10(*value) : *value;
  }
  double y(double position) const {
    return 5 + (kHeight - kBottom - 10) * (1 - (position - low) / (high - low));
  }
};

using Values = std::vector<std::optional<double>>;

std::optional<Axis> axis_of(const Values& values) {
  Axis axis;
  axis.log = std::none_of(values.begin(), values.end(),
                          [](const auto& value) { return value && *value < 0; });
  bool any = false;
  for (const auto& value : values) {
    const std::optional<double> at = axis.position(value);
    if (!at) continue;
    axis.low = any ? std::min(axis.low, *at) : *at;
    axis.high = any ? std::max(axis.high, *at) : *at;
    any = true;
  }
  if (!any) return std::nullopt;
  if (axis.high - axis.low < 1e-9) axis.high = axis.low + 1;
  return axis;
}

double x_of(std::size_t row, std::size_t rows) {
  const double last = rows > 1 ? static_cast<double>(rows - 1) : 1;
  return kLeft + (kWidth - kLeft - 5) * static_cast<double>(row) / last;
}

// From the lowest to the highest value of each stretch of rows.
std::string path_of(const Values& values, const Axis& axis) {
  const std::size_t stretch = std::max<std::size_t>(1, (values.size() + kBuckets - 1) / kBuckets);
  std::string path;
  bool pen_down = false;
  for (std::size_t begin = 0; begin < values.size(); begin += stretch) {
    std::optional<double> low;
    std::optional<double> high;
    for (std::size_t i = begin; i < std::min(values.size(), begin + stretch); ++i) {
      const std::optional<double> at = axis.position(values[i]);
      if (!at) continue;
      low = low ? std::min(*low, *at) : *at;
      high = high ? std::max(*high, *at) : *at;
    }
    if (!low) continue;
    const std::string x = coordinate(x_of(begin, values.size()));
    path.append(pen_down ? "L" : "M").append(x).append(" ").append(coordinate(axis.y(*low)));
    if (*high > *low) path.append("L").append(x).append(" ").append(coordinate(axis.y(*high)));
    pen_down = true;
  }
  return path;
}

std::string label(double x, double y, const std::string& text, const char* anchor) {
  return "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" text-anchor=\"" + anchor +
         "\">" + escaped(text) + "</text>";
}

// Where in the file an event lies: rows of its attempt between its steps.
struct Span {
  std::size_t first = 0;
  std::size_t last = 0;
};
Span span_of(const ReplayedFile& file, const replay::ReplayedIncident& found) {
  std::size_t begin = 0;
  for (std::uint32_t i = 0; i + 1 < found.attempt; ++i) begin += file.result.attempts[i].rows;
  const std::size_t end = begin + file.result.attempts[found.attempt - 1].rows;
  Span span{end - 1, begin};
  for (std::size_t i = begin; i < end; ++i) {
    const std::uint64_t step = file.content.rows[i].step.value_or(0);
    if (step < found.incident.start_step || step > found.incident.last_step) continue;
    span.first = std::min(span.first, i);
    span.last = std::max(span.last, i);
  }
  return span;
}

std::string marks(const ReplayedFile& file, const std::vector<v1::Event>& events) {
  std::string out;
  for (std::size_t i = 0; i < events.size(); ++i) {
    const Span span = span_of(file, file.result.incidents[i]);
    const std::size_t rows = file.content.rows.size();
    const double x = x_of(span.first, rows);
    out += "<rect class=\"" + std::string(ingest::severity_name(events[i].severity())) + "\" x=\"" +
           coordinate(x) + "\" y=\"0\" width=\"" +
           coordinate(std::max(1.5, x_of(span.last, rows) - x)) + "\" height=\"" +
           coordinate(kHeight - kBottom) + "\" opacity=\".35\"><title>" +
           escaped(events[i].message()) + "</title></rect>";
  }
  return out;
}

std::string plot_of(const std::string& name, const Values& values, const ReplayedFile& file,
                    const std::vector<v1::Event>& events) {
  const std::optional<Axis> axis = axis_of(values);
  if (!axis) return "";
  const auto unit = [&](double at) { return number(axis->log ? std::pow(10, at) : at); };
  const std::vector<replay::LogRow>& rows = file.content.rows;
  std::string out = "<h3>" + name + (axis->log ? ", log axis" : "") + "</h3>\n<svg width=\"" +
                    coordinate(kWidth) + "\" height=\"" + coordinate(kHeight) +
                    "\" role=\"img\" aria-label=\"" + name + "\">";
  out += marks(file, events);
  out += "<path fill=\"none\" stroke=\"#1f4e8c\" d=\"" + path_of(values, *axis) + "\"/>";
  out += label(kLeft - 4, 14, unit(axis->high), "end");
  out += label(kLeft - 4, kHeight - kBottom - 4, unit(axis->low), "end");
  out += label(kLeft, kHeight - 5, "step " + std::to_string(*rows.front().step), "start");
  out += label(kWidth - 5, kHeight - 5, std::to_string(*rows.back().step), "end");
  return out + "</svg>\n";
}

std::string explained(const v1::Event& event) {
  if (event.cause().empty()) return "";
  std::string out = "<b>" + escaped(cause_text(event.cause(), event.confidence())) + "</b>";
  for (const std::string& evidence : event.evidence()) out += "<br>" + escaped(evidence);
  return out + "<br>";
}

std::string table_of(const std::vector<v1::Event>& events) {
  if (events.empty()) return "<p>no events</p>\n";
  std::string out = "<table><tr><th>severity</th><th>kind</th><th>steps</th><th>what</th></tr>\n";
  for (const v1::Event& event : events) {
    const std::string severity(ingest::severity_name(event.severity()));
    std::string steps = std::to_string(event.start_step());
    if (event.end_step() != event.start_step()) {
      steps.append("-").append(std::to_string(event.end_step()));
    }
    for (const std::string& part :
         {std::string("<tr><td class=\""), severity, std::string("\">"), severity,
          std::string("</td><td>"), escaped(event.kind()), std::string("</td><td>"), steps,
          std::string("</td><td>"), escaped(event.message()), std::string("<br>"), explained(event),
          escaped(event.action()), std::string("</td></tr>\n")}) {
      out += part;
    }
  }
  return out + "</table>\n";
}

}  // namespace

std::string replay_html(const std::vector<ReplayedFile>& files) {
  std::string out = kHead;
  for (const ReplayedFile& file : files) {
    const std::vector<v1::Event> events = events_of(file);
    Values losses;
    Values norms;
    for (const replay::LogRow& row : file.content.rows) {
      losses.push_back(row.loss);
      norms.push_back(row.grad_norm);
    }
    out += "<h2>" + escaped(file.path) + "</h2>\n<pre>" + escaped(replay_summary(file, 110)) +
           "</pre>\n";
    out += plot_of("grad norm", norms, file, events);
    out += plot_of("loss", losses, file, events);
    out += table_of(events);
  }
  return out + "</body></html>\n";
}

}  // namespace gradwarden::cli
