#include "daemon/cli/text.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <clocale>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <sstream>

namespace gradwarden::cli {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

std::string severity_word(v1::Severity severity) {
  return enum_word(*v1::Severity_descriptor()->FindValueByNumber(severity));
}

std::string steps_of(const v1::Event& event) {
  const std::string start = std::to_string(event.start_step());
  if (!event.has_end_step()) return "step " + start + " on";
  if (event.end_step() == event.start_step()) return "step " + start;
  return "steps " + start + "-" + std::to_string(event.end_step());
}

}  // namespace

std::string enum_word(const google::protobuf::EnumValueDescriptor& value) {
  // GRPC style: the type's name in capitals is the prefix of each value.
  std::string prefix;
  for (const char c : value.type()->name()) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !prefix.empty()) prefix += '_';
    prefix += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  std::string word = value.name();
  if (word.starts_with(prefix + "_")) word.erase(0, prefix.size() + 1);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return word;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string local_time(std::uint64_t unix_ns) {
  if (unix_ns == 0) return "-";
  const auto seconds = static_cast<std::time_t>(unix_ns / kSecond);
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

std::string ago(std::uint64_t unix_ns) {
  if (unix_ns == 0) return "-";
  const auto now = std::chrono::duration_cast<std::chrono::nanoseconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  const std::int64_t seconds = std::max<std::int64_t>(
      0, (now - static_cast<std::int64_t>(unix_ns)) / static_cast<std::int64_t>(kSecond));
  if (seconds < 120) return std::to_string(seconds) + " s ago";
  if (seconds < 7200) return std::to_string(seconds / 60) + " min ago";
  if (seconds < 172800) return std::to_string(seconds / 3600) + " h ago";
  return std::to_string(seconds / 86400) + " d ago";
}

std::string event_line(const v1::Event& event, bool with_run) {
  std::ostringstream out;
  out << severity_word(event.severity()) << "  ";
  if (with_run) out << event.run() << "  ";
  out << steps_of(event) << "  " << event.kind() << "  ";
  if (!event.message().empty()) {
    out << event.message();
  } else {
    out << event.signal() << ' ' << number(event.value());
  }
  if (!event.action().empty()) out << "  -> " << event.action();
  return out.str();
}

std::string table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
    }
    out += line + '\n';
  }
  return out;
}

int terminal_width() {
  if (const char* columns = std::getenv("COLUMNS")) {
    const int value = std::atoi(columns);
    if (value >= 40 && value <= 1000) return value;
  }
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
  return 100;
}

bool utf8_output() {
  static const bool utf8 = [] {
    std::setlocale(LC_CTYPE, "");
    return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  }();
  return utf8;
}

}  // namespace gradwarden::cli
