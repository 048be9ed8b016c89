#include "daemon/cli/text.h"

#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <clocale>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>

namespace gradwarden::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::size_t kSmallestWidth = 40;
constexpr std::size_t kLargestWidth = 1000;
constexpr std::size_t kWidthWithoutTerminal = 100;
constexpr std::size_t kGap = 2;  // between columns of a table

std::vector<std::size_t> column_widths(const Rows& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], display_width(row[i]));
  }
  return widths;
}

std::size_t total_width(const Rows& rows) {
  std::size_t total = 0;
  for (const std::size_t width : column_widths(rows)) total += width + kGap;
  return total > kGap ? total - kGap : 0;
}

void drop_column(Rows& rows, const std::string& heading) {
  const auto found = std::find(rows[0].begin(), rows[0].end(), heading);
  if (found == rows[0].end()) return;
  const auto column = found - rows[0].begin();
  for (auto& row : rows) {
    if (static_cast<std::size_t>(column) < row.size()) row.erase(row.begin() + column);
  }
}

// True if each cell below the heading is a number or a dash.
bool is_numeric(const Rows& rows, std::size_t column) {
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const std::string& cell = rows[i][column];
    const bool special = cell == "-" || cell == "nan" || cell == "inf" || cell == "-inf";
    const bool plain = cell.find_first_not_of("0123456789.+-e") == std::string::npos;
    if (!special && (!plain || std::isdigit(static_cast<unsigned char>(cell.back())) == 0))
      return false;
  }
  return rows.size() > 1;
}

}  // namespace

std::string enum_word(const google::protobuf::EnumDescriptor& type, int value) {
  const google::protobuf::EnumValueDescriptor* found = type.FindValueByNumber(value);
  if (found == nullptr) found = type.FindValueByNumber(0);
  // GRPC style: the type's name in capitals is the prefix of each value.
  std::string prefix;
  for (const char c : type.name()) {
    if (std::isupper(static_cast<unsigned char>(c)) != 0 && !prefix.empty()) prefix += '_';
    prefix += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  std::string word = found->name();
  if (word.starts_with(prefix + "_")) word.erase(0, prefix.size() + 1);
  std::transform(word.begin(), word.end(), word.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return word;
}

std::string number(double value) {
  char text[32];
  const bool integer = std::abs(value) < 1e15 && value == std::floor(value);
  std::snprintf(text, sizeof text, integer ? "%.0f" : "%.4g", value);
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

std::string ago(std::uint64_t unix_ns, std::uint64_t now_ns) {
  if (unix_ns == 0) return "-";
  const std::uint64_t seconds = now_ns > unix_ns ? (now_ns - unix_ns) / kSecond : 0;
  if (seconds < 120) return std::to_string(seconds) + " s ago";
  if (seconds < 7200) return std::to_string(seconds / 60) + " min ago";
  if (seconds < 172800) return std::to_string(seconds / 3600) + " h ago";
  return std::to_string(seconds / 86400) + " d ago";
}

std::uint64_t now_unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

std::string counted(std::uint64_t count, const std::string& one, const std::string& many) {
  return std::to_string(count) + ' ' + (count == 1 ? one : many.empty() ? one + 's' : many);
}

std::string table(Rows rows, std::size_t width, const std::vector<std::string>& expendable) {
  for (const std::string& heading : expendable) {
    if (total_width(rows) <= width) break;
    drop_column(rows, heading);
  }
  const std::vector<std::size_t> widths = column_widths(rows);
  std::vector<bool> right(widths.size());
  for (std::size_t i = 0; i < widths.size(); ++i) right[i] = is_numeric(rows, i);
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - display_width(row[i]), ' ');
      line += right[i] ? padding + row[i] : row[i] + padding;
      line.append(kGap, ' ');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + '\n';
  }
  return out;
}

std::string wrapped(const std::string& text, std::size_t indent, std::size_t width) {
  std::istringstream words(text);
  const std::string margin(indent, ' ');
  std::string out;
  std::string line;
  std::string word;
  while (words >> word) {
    if (!line.empty() && indent + display_width(line) + 1 + display_width(word) > width) {
      out += margin + line + '\n';
      line.clear();
    }
    if (!line.empty()) line += ' ';
    line += word;
  }
  return line.empty() ? out : out + margin + line + '\n';
}

std::size_t display_width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) >> 6) != 2; }));
}

std::size_t terminal_width() {
  std::size_t width = kWidthWithoutTerminal;
  winsize size{};
  const char* columns = std::getenv("COLUMNS");
  const long wanted = columns != nullptr ? std::strtol(columns, nullptr, 10) : 0;
  if (wanted > 0) {
    width = static_cast<std::size_t>(wanted);
  } else if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    width = size.ws_col;
  }
  return std::clamp(width, kSmallestWidth, kLargestWidth);
}

bool utf8_output() {
  static const bool utf8 = [] {
    std::setlocale(LC_CTYPE, "");
    return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
  }();
  return utf8;
}

}  // namespace gradwarden::cli
