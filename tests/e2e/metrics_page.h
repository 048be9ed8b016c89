// Reads values from a metrics page in the text format. For tests.
#ifndef GRADWARDEN_TESTS_E2E_METRICS_PAGE_H_
#define GRADWARDEN_TESTS_E2E_METRICS_PAGE_H_

#include <cstdlib>
#include <limits>
#include <sstream>
#include <string>

namespace gradwarden::testing {

// The value of a series as it stands on the page, labels included; NaN if it is not there.
inline double metric_value(const std::string& page, const std::string& series) {
  std::istringstream lines(page);
  std::string line;
  while (std::getline(lines, line)) {
    if (line.rfind(series + " ", 0) == 0)
      return std::strtod(line.c_str() + series.size() + 1, nullptr);
  }
  return std::numeric_limits<double>::quiet_NaN();
}

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_METRICS_PAGE_H_
