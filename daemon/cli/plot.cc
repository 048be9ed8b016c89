#include "daemon/cli/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace gradwarden::cli {
namespace {

constexpr std::size_t kLabelWidth = kPlotMargin - 2;

struct Range {
  double low;  // log10
  double high;
};

// Null range (low > high) if nothing can be drawn.
Range range_of(const std::vector<PlotColumn>& columns) {
  Range range{std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()};
  for (const PlotColumn& column : columns) {
    if (!(column.high > 0)) continue;
    range.low = std::min(range.low, std::log10(column.low));
    range.high = std::max(range.high, std::log10(column.high));
  }
  if (range.high - range.low < 0.1) {  // a flat line in the middle
    range.low -= 0.05;
    range.high += 0.05;
  }
  return range;
}

std::string trimmed(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string axis_label(const Range& range, int row, int height) {
  std::string label;
  if (row == 0 || row == height - 1 || row == height / 2) {
    const double at = range.high - (range.high - range.low) * row / (height - 1);
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", std::pow(10.0, at));
    label = text;
  }
  label.insert(0, kLabelWidth - std::min(kLabelWidth, label.size()), ' ');
  return label;
}

// Row of a value; row 0 is the highest.
int row_of(double value, const Range& range, int height) {
  const double share = (range.high - std::log10(value)) / (range.high - range.low);
  return std::clamp(static_cast<int>(std::lround(share * (height - 1))), 0, height - 1);
}

std::string body_row(const std::vector<PlotColumn>& columns, const Range& range, int row,
                     const PlotStyle& style) {
  const char* bar = style.utf8 ? "\u2588" : "#";
  std::string line = axis_label(range, row, style.height) + (style.utf8 ? " \u2524" : " |");
  for (const PlotColumn& column : columns) {
    const bool inside = column.high > 0 && row >= row_of(column.high, range, style.height) &&
                        row <= row_of(column.low, range, style.height);
    line += inside ? bar : " ";
  }
  return trimmed(line) + '\n';
}

std::string mark_row(const std::vector<PlotColumn>& columns) {
  std::string line(kPlotMargin, ' ');
  for (const PlotColumn& column : columns) {
    line += column.mark != ' ' ? column.mark : column.non_finite ? 'N' : ' ';
  }
  line = trimmed(line);
  return line.empty() ? line : line + '\n';
}

std::string step_row(const std::vector<PlotColumn>& columns) {
  const std::string first = std::to_string(columns.front().first_step);
  const std::string last = std::to_string(columns.back().last_step);
  std::string line(kPlotMargin, ' ');
  line += "step " + first;
  if (first == last) return line + '\n';
  const std::size_t end = kPlotMargin + columns.size();
  if (line.size() + last.size() + 1 < end)
    line.append(end - line.size() - last.size(), ' ');
  else
    line += " to ";
  return line + last + '\n';
}

void join(const PlotColumn& next, PlotColumn& column) {
  column.last_step = next.last_step;
  column.non_finite = column.non_finite || next.non_finite;
  if (column.mark == ' ') column.mark = next.mark;
  if (!(next.high > 0)) return;
  column.low = column.high > 0 ? std::min(column.low, next.low) : next.low;
  column.high = std::max(column.high, next.high);
}

}  // namespace

std::vector<PlotColumn> joined(const std::vector<PlotColumn>& columns, std::size_t limit) {
  const std::size_t stride = std::max<std::size_t>(1, (columns.size() + limit - 1) / limit);
  std::vector<PlotColumn> out;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (i % stride == 0) {
      out.push_back(columns[i]);
    } else {
      join(columns[i], out.back());
    }
  }
  return out;
}

std::string plot(const std::vector<PlotColumn>& columns, const PlotStyle& style) {
  if (columns.empty()) return {};
  const Range range = range_of(columns);
  if (range.low > range.high) return {};
  std::string out;
  for (int row = 0; row < style.height; ++row) out += body_row(columns, range, row, style);
  return out + mark_row(columns) + step_row(columns);
}

}  // namespace gradwarden::cli
