#include <array>
#include <optional>

#include "daemon/replay/overflows.h"
#include "daemon/replay/readers.h"
#include "daemon/replay/row_collector.h"
#include "daemon/replay/text_lines.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kKindNames[] = {"Megatron console", "llm.c log", "training meters",
                                           "text log"};

// The last word of a line that was cut may be half a number.
std::string_view without_last_word(std::string_view line) {
  const std::size_t end = line.find_last_of(" ,|\t");
  return end == std::string_view::npos ? std::string_view() : line.substr(0, end + 1);
}

}  // namespace

LogContent read_text(std::string_view bytes) {
  Overflows overflows;
  LogContent content = read_text_piece(bytes, overflows);
  if (overflows.pending() != 0 && !content.rows.empty()) {
    LogRow& last = content.rows.back();
    last.overflows = last.overflows.value_or(0) + overflows.pending();
  }
  return content;
}

LogContent read_text_piece(std::string_view bytes, Overflows& overflows) {
  LogContent content;
  RowCollector rows(content);
  std::array<std::uint64_t, std::size(kKindNames)> counts{};
  while (const std::optional<Line> line = next_line(bytes)) {
    if (const std::optional<OverflowLine> overflow = parse_overflow(line->text)) {
      overflows.add(*overflow);
      continue;
    }
    std::optional<ParsedLine> parsed =
        parse_line(line->ended ? line->text : without_last_word(line->text));
    if (!parsed || (!parsed->row.loss && !parsed->row.grad_norm && !parsed->row.overflows))
      continue;
    overflows.give(parsed->row);
    ++counts[static_cast<std::size_t>(parsed->kind)];
    rows.add(parsed->row);
  }
  rows.finish();
  std::size_t most = std::size(kKindNames) - 1;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > counts[most]) most = i;
  }
  content.format = kKindNames[most];
  return content;
}

}  // namespace gradwarden::replay
