// What a training log tells about one step, and what reading a log came to.
//
// Plain values. Readers produce them and know nothing of detection.
#ifndef GRADWARDEN_DAEMON_REPLAY_LOG_ROW_H_
#define GRADWARDEN_DAEMON_REPLAY_LOG_ROW_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gradwarden::replay {

struct LogRow {
  std::optional<std::uint64_t> step;  // absent: the format has none, rows are counted
  std::optional<double> loss;
  std::optional<double> grad_norm;
  std::optional<double> learning_rate;
  std::optional<double> loss_scale;
  std::optional<double> update_norm;
  std::optional<std::uint64_t> overflows;  // steps that a loss scale skipped since the row before
  // What only reports of gradwarden's own client tell.
  std::optional<double> clip_threshold;
  std::optional<bool> clipped;
  bool skipped = false;                // the update was not applied
  std::uint64_t non_finite_count = 0;  // elements
  std::vector<double> group_norms;
  std::vector<double> local_norms;  // by rank, before the reduction
  std::vector<std::string> batch_ids;

  // It says something about the step itself.
  bool tells() const { return loss || grad_norm || overflows.value_or(0) != 0; }
};

struct LogContent {
  std::string format;               // in words: "JSON lines"
  std::vector<LogRow> rows;         // each has a step; where steps go back an attempt begins
  std::uint64_t unreadable = 0;     // lines, records or rows that were cut or damaged
  std::uint64_t repeated = 0;       // rows that told again of the step before, left out
  std::vector<std::string> uses;    // "loss from train_loss", where the file has named columns
  std::vector<std::string> groups;  // whose norms the rows have
  bool counted_steps = false;       // the file has no steps: rows are counted from 0
};

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_LOG_ROW_H_
