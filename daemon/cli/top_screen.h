// The screen of `gradwarden top`: runs with a sparkline of their norms, and the last events. Pure.
#ifndef GRADWARDEN_DAEMON_CLI_TOP_SCREEN_H_
#define GRADWARDEN_DAEMON_CLI_TOP_SCREEN_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

struct TopRun {
  v1::RunSummary summary;
  std::vector<double> norms;  // of the last steps or points; NaN where a norm is not finite
};

struct TopView {
  std::vector<TopRun> runs;       // the one that reported last first
  std::vector<v1::Event> events;  // in order of their ids
  std::string trouble;            // why what is shown may be old; "" if all is well
  std::uint64_t now_ns = 0;
};

// Eight heights between the smallest and the largest, in the log domain; "x" where a value is not
// finite or not above 0. Without UTF-8 the digits 1 to 8.
std::string sparkline(const std::vector<double>& values, std::size_t width, bool utf8);

// At most `height` lines of at most `width` columns each.
std::vector<std::string> top_lines(const TopView& view, std::size_t width, std::size_t height,
                                   bool utf8);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_TOP_SCREEN_H_
