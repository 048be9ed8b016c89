#include <algorithm>
#include <string>
#include <vector>

#include "daemon/replay/number_text.h"
#include "daemon/replay/readers.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kSeparators = "\t,;";

// Quoted cells lose their quotes; line ends within them are not supported, no number has one.
std::vector<std::string> cells_of(std::string_view line, char separator) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"')
      quoted = !quoted;
    else if (c == separator && !quoted)
      cells.emplace_back();
    else
      cells.back() += c;
  }
  return cells;
}

char separator_of(std::string_view header) {
  for (const char separator : kSeparators) {
    if (header.find(separator) != std::string_view::npos) return separator;
  }
  return ',';
}

std::string_view header_of(std::string_view& bytes) {
  std::string_view header;
  while (const std::optional<Line> line = next_line(bytes)) {
    header = trimmed(line->text);
    if (!header.empty()) break;
  }
  while (!header.empty() && (header.front() == '#' || header.front() == ' '))
    header.remove_prefix(1);
  return header;
}

using Columns = std::vector<std::optional<std::uint32_t>>;

// True if a cell was used. The last cell of a cut line may be half a number.
bool read_row(const std::vector<std::string>& cells, const Columns& columns, bool ended,
              RecordTable& table) {
  table.begin_record();
  bool used = false;
  for (std::size_t i = 0; i < cells.size() && i < columns.size(); ++i) {
    if (!columns[i] || (!ended && i + 1 == cells.size())) continue;
    std::optional<double> value = parse_number(cells[i]);
    if (!value && (cells[i] == "True" || cells[i] == "true")) value = 1;
    if (!value) continue;
    table.set(*columns[i], *value);
    used = true;
  }
  return used;
}

}  // namespace

bool looks_like_csv(std::string_view bytes, const ColumnChoice& choice) {
  const std::string_view header = header_of(bytes);
  const std::vector<std::string> names = cells_of(header, separator_of(header));
  if (names.size() < 2) return false;
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    const std::optional<Meaning> meaning = meaning_of(name, choice);
    return meaning && (meaning->field == Field::kLoss || meaning->field == Field::kGradNorm);
  });
}

LogContent read_csv(std::string_view bytes, const ColumnChoice& choice) {
  LogContent content;
  const std::string_view header = header_of(bytes);
  const char separator = separator_of(header);
  content.format = separator == '\t' ? "TSV" : "CSV";
  RecordTable table(choice);
  Columns columns;
  for (const std::string& name : cells_of(header, separator)) columns.push_back(table.column(name));
  while (const std::optional<Line> line = next_line(bytes)) {
    const std::string_view text = line->text;
    if (trimmed(text).empty()) continue;
    const std::vector<std::string> cells = cells_of(text, separator);
    const bool whole = cells.size() == columns.size();
    if (!whole || !read_row(cells, columns, line->ended, table)) ++content.unreadable;
  }
  table.append_rows(content);
  return content;
}

}  // namespace gradwarden::replay
