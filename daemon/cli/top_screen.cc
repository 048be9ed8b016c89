#include "daemon/cli/top_screen.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "daemon/cli/event_text.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

constexpr std::size_t kSparkWidth = 40;
constexpr std::size_t kFixedLines = 4;  // head, heading of the table, blank, heading of the events
constexpr std::uint64_t kSilentAfterNs = 600ULL * 1'000'000'000;
constexpr const char* kBlocks[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

std::string state_of(const v1::RunSummary& run, std::uint64_t now_ns) {
  if (run.open_events() != 0) return "! " + counted(run.open_events(), "open event");
  if (run.finished()) return "finished";
  return run.last_report_unix_ns() + kSilentAfterNs < now_ns ? "silent" : "running";
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Cut to so many columns; a character of UTF-8 counts as one.
std::string cut(const std::string& text, std::size_t width) {
  std::string out;
  std::size_t columns = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool begins = (static_cast<unsigned char>(text[i]) & 0xC0U) != 0x80U;
    if (begins && ++columns > width) break;
    out += text[i];
  }
  return out;
}

std::vector<std::string> table_of_runs(const TopView& view, std::size_t width, std::size_t room,
                                       bool utf8) {
  std::vector<std::vector<std::string>> rows = {
      {"RUN", "STATE", "STEP", "GRAD NORM", "NORM, LOG", "LOSS", "CLIPPED", "SKIPPED", "REPORT"}};
  for (const TopRun& run : view.runs) {
    if (rows.size() > room) break;
    const v1::RunSummary& summary = run.summary;
    rows.push_back(
        {summary.run(), state_of(summary, view.now_ns), std::to_string(summary.last_step()),
         number(summary.grad_norm()), sparkline(run.norms, kSparkWidth, utf8),
         summary.has_loss() ? number(summary.loss()) : "-", std::to_string(summary.clipped_steps()),
         std::to_string(summary.skipped_steps()), ago(summary.last_report_unix_ns(), view.now_ns)});
  }
  return lines_of(
      table(std::move(rows), width, {"CLIPPED", "SKIPPED", "REPORT", "LOSS", "NORM, LOG", "STEP"}));
}

}  // namespace

std::string sparkline(const std::vector<double>& values, std::size_t width, bool utf8) {
  const std::size_t first = values.size() > width ? values.size() - width : 0;
  double low = INFINITY;
  double high = -INFINITY;
  for (std::size_t i = first; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || values[i] <= 0) continue;
    low = std::min(low, std::log(values[i]));
    high = std::max(high, std::log(values[i]));
  }
  std::string out;
  for (std::size_t i = first; i < values.size(); ++i) {
    if (!std::isfinite(values[i]) || values[i] <= 0) {
      out += 'x';
      continue;
    }
    const double share = high > low ? (std::log(values[i]) - low) / (high - low) : 0;
    const auto level = static_cast<std::size_t>(std::lround(share * 7));
    if (utf8) {
      out += kBlocks[level];
    } else {
      out += static_cast<char>('1' + level);
    }
  }
  return out;
}

std::vector<std::string> top_lines(const TopView& view, std::size_t width, std::size_t height,
                                   bool utf8) {
  const std::size_t free = height > kFixedLines ? height - kFixedLines : 1;
  const std::size_t event_room = std::min(view.events.size(), std::max<std::size_t>(free / 2, 1));
  std::vector<std::string> lines;
  std::uint64_t open = 0;
  for (const TopRun& run : view.runs) open += run.summary.open_events();
  std::string head = "gradwarden  " + local_time(view.now_ns) + "  " +
                     counted(view.runs.size(), "run") + ", " + counted(open, "open event");
  lines.push_back(view.trouble.empty() ? head : head + "  " + view.trouble);
  if (view.runs.empty())
    lines.emplace_back("no runs yet; point a trainer's reporter at this daemon");
  if (!view.runs.empty()) {
    for (std::string& line : table_of_runs(view, width, free - std::min(free, event_room), utf8)) {
      lines.push_back(std::move(line));
    }
  }
  if (!view.events.empty()) {
    lines.emplace_back();
    lines.emplace_back("last events");
    for (std::size_t i = 0; i < event_room; ++i) {
      lines.push_back("  " + event_line(view.events[view.events.size() - 1 - i]));
    }
  }
  if (lines.size() > height) lines.resize(height);
  for (std::string& line : lines) line = cut(line, width);
  return lines;
}

}  // namespace gradwarden::cli
