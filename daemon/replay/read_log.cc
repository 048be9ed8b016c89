#include "daemon/replay/number_text.h"
#include "daemon/replay/readers.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

LogContent read_json(std::string_view bytes, const ColumnChoice& choice) {
  LogContent lines = read_json_lines(bytes, choice);
  if (!lines.rows.empty() && lines.unreadable <= lines.rows.size()) return lines;
  LogContent document = read_json_document(bytes, choice);
  return document.rows.size() >= lines.rows.size() ? document : lines;
}

}  // namespace

std::optional<Line> next_line(std::string_view& bytes) {
  if (bytes.empty()) return std::nullopt;
  const std::size_t end = bytes.find_first_of("\n\r");
  if (end == std::string_view::npos) {
    const Line line{bytes, false};
    bytes = {};
    return line;
  }
  const Line line{bytes.substr(0, end), true};
  const bool pair = bytes[end] == '\r' && end + 1 < bytes.size() && bytes[end + 1] == '\n';
  bytes.remove_prefix(end + (pair ? 2 : 1));
  return line;
}

LogContent read_log(std::string_view bytes, const ColumnChoice& choice) {
  if (looks_like_event_file(bytes)) return read_event_file(bytes, choice);
  if (bytes.substr(0, kByteOrderMark.size()) == kByteOrderMark) {
    bytes.remove_prefix(kByteOrderMark.size());
  }
  if (looks_like_export(bytes)) return read_export(bytes);
  if (looks_like_json(bytes)) return read_json(bytes, choice);
  if (looks_like_csv(bytes, choice)) return read_csv(bytes, choice);
  LogContent text = read_text(bytes);
  if (!text.rows.empty()) return text;
  // A trainer that prints records between other lines.
  LogContent lines = read_json_lines(bytes, choice);
  return lines.rows.empty() ? text : lines;
}

}  // namespace gradwarden::replay
