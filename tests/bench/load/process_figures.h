// What the operating system says of a process, and percentiles. For benchmarks; Linux.
#ifndef GRADWARDEN_TESTS_BENCH_LOAD_PROCESS_FIGURES_H_
#define GRADWARDEN_TESTS_BENCH_LOAD_PROCESS_FIGURES_H_

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

namespace gradwarden::load {

// Bytes of a line of /proc/PID/status, "VmRSS" or "VmHWM"; 0 if the process is gone.
inline std::size_t memory_of(pid_t pid, const std::string& line_name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind(line_name + ":", 0) == 0) {
      return std::strtoull(line.c_str() + line_name.size() + 1, nullptr, 10) * 1024;
    }
  }
  return 0;
}

// Seconds of CPU time that a process has used.
inline double cpu_seconds(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  // Fields after the command, which stands in parentheses; user and system time are the 12th and
  // 13th.
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string field;
  double ticks = 0;
  for (int i = 1; i <= 13 && fields >> field; ++i) {
    if (i >= 12) ticks += std::atof(field.c_str());
  }
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// NaN of nothing.
inline double percentile(std::vector<double> values, double share) {
  if (values.empty()) return std::nan("");
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<std::size_t>(rank, 1, values.size()) - 1];
}

}  // namespace gradwarden::load

#endif  // GRADWARDEN_TESTS_BENCH_LOAD_PROCESS_FIGURES_H_
