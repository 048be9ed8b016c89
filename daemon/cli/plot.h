// A plot of the grad norm for a terminal: logarithmic axis, one column per stretch of steps from
// its minimum to its maximum, events marked below.
#ifndef GRADWARDEN_DAEMON_CLI_PLOT_H_
#define GRADWARDEN_DAEMON_CLI_PLOT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gradwarden::cli {

struct PlotColumn {
  std::uint64_t first_step = 0;
  std::uint64_t last_step = 0;
  double low = 0;  // of the finite, positive norms; 0: there were none
  double high = 0;
  bool non_finite = false;
  char mark = ' ';  // the most important event that touches these steps
};

struct PlotStyle {
  int height = 14;
  bool utf8 = true;
};

// Neighbours put together, equally many in each, so that at most `limit` columns are left.
std::vector<PlotColumn> joined(const std::vector<PlotColumn>& columns, std::size_t limit);

// Columns of the terminal that stand left of the first plot column.
inline constexpr std::size_t kPlotMargin = 11;

// Lines ended by newline, none wider than kPlotMargin and the columns, unless those are too few for
// the step numbers below them. Empty if no column has a norm.
std::string plot(const std::vector<PlotColumn>& columns, const PlotStyle& style);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_PLOT_H_
