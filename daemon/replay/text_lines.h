// Single lines of trainers that log for people. Pure functions.
#ifndef GRADWARDEN_DAEMON_REPLAY_TEXT_LINES_H_
#define GRADWARDEN_DAEMON_REPLAY_TEXT_LINES_H_

#include <optional>
#include <string_view>

#include "daemon/replay/log_row.h"

namespace gradwarden::replay {

// The number that follows `key`, behind blanks, colons, equals signs and quotes. The key stands at
// the begin of a word, and not behind "val" and the like.
std::optional<double> value_after(std::string_view line, std::string_view key);

enum class LineKind { kMegatron, kLlmC, kMeter, kKeyed };

struct ParsedLine {
  LineKind kind = LineKind::kKeyed;
  LogRow row;
};

// Nothing for a line that tells of no step. Such as:
//   iteration 12695/ 115311 | ... | lm loss: 2.463556E+00 | grad norm: 0.174 |       (Megatron)
//   s:42 trl:9.0 lr:0.000001 norm:15.37                                             (llm.c)
//   0: TRAIN [0][10/321] Time 0.047 (0.079) Loss/tok 9.5459 (10.1015) LR 5.167e-05  (meters)
//   step 0 | loss: 10.95 | lr 8.3e-07 | norm: 15.34       iter 10: loss 3.2, ...    (keyed)
std::optional<ParsedLine> parse_line(std::string_view line);

// A step that a loss scale skipped, as DeepSpeed, apex and Megatron print it.
struct OverflowLine {
  bool of_rank_zero = true;
  std::optional<double> loss_scale;  // from then on
  bool once_per_rank = false;        // apex: every rank prints it
};
std::optional<OverflowLine> parse_overflow(std::string_view line);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_TEXT_LINES_H_
