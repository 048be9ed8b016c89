// Steps that a loss scale skipped, on their way from the lines that tell of them to a row. Kept
// from piece to piece of a log that grows.
//
// Plain values; one reader owns it.
#ifndef GRADWARDEN_DAEMON_REPLAY_OVERFLOWS_H_
#define GRADWARDEN_DAEMON_REPLAY_OVERFLOWS_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "daemon/replay/log_row.h"
#include "daemon/replay/text_lines.h"

namespace gradwarden::replay {

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

// A piece of a text log; what it leaves pending waits for the next one.
LogContent read_text_piece(std::string_view bytes, Overflows& overflows);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_OVERFLOWS_H_
