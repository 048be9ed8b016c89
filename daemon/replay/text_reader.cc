#include <array>
#include <optional>

#include "daemon/replay/readers.h"
#include "daemon/replay/row_collector.h"
#include "daemon/replay/text_lines.h"

namespace gradwarden::replay {
namespace {

constexpr std::string_view kKindNames[] = {"Megatron console", "llm.c log", "training meters",
                                           "text log"};

// Overflow lines stand before the line of their step, or of the next one that is logged. Where each
// rank prints the same line, some may come after it.
class Overflows {
 public:
  void add(const OverflowLine& line) {
    if (!line.of_rank_zero) return;
    const bool again =
        line.once_per_rank && line.loss_scale && line.loss_scale == last_scale_ && !clean_row_;
    seen_since_row_ = true;
    clean_row_ = false;
    if (again) return;
    ++pending_;
    last_scale_ = line.loss_scale;
    pending_scale_ = line.loss_scale;
  }
  // The next row takes what is pending, unless it counts itself.
  void give(LogRow& row) {
    if (!row.overflows && pending_ != 0) row.overflows = pending_;
    if (!row.loss_scale) row.loss_scale = pending_scale_;
    clean_row_ = !seen_since_row_;
    seen_since_row_ = false;
    pending_ = 0;
    pending_scale_.reset();
  }
  std::uint64_t pending() const { return pending_; }

 private:
  std::uint64_t pending_ = 0;
  std::optional<double> pending_scale_;
  std::optional<double> last_scale_;
  bool seen_since_row_ = false;
  bool clean_row_ = true;  // a row passed without any such line
};

// The last word of a line that was cut may be half a number.
std::string_view without_last_word(std::string_view line) {
  const std::size_t end = line.find_last_of(" ,|\t");
  return end == std::string_view::npos ? std::string_view() : line.substr(0, end + 1);
}

}  // namespace

LogContent read_text(std::string_view bytes) {
  LogContent content;
  RowCollector rows(content);
  Overflows overflows;
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
  if (overflows.pending() != 0 && !content.rows.empty()) {
    LogRow& last = content.rows.back();
    last.overflows = last.overflows.value_or(0) + overflows.pending();
  }
  std::size_t most = std::size(kKindNames) - 1;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] > counts[most]) most = i;
  }
  content.format = kKindNames[most];
  return content;
}

}  // namespace gradwarden::replay
