// Readers of training logs, one per format. What is readable is used; what is not is counted.
//
// Pure functions: bytes in, rows out. They throw nothing but for memory.
#ifndef GRADWARDEN_DAEMON_REPLAY_READERS_H_
#define GRADWARDEN_DAEMON_REPLAY_READERS_H_

#include <optional>
#include <string_view>

#include "daemon/replay/columns.h"
#include "daemon/replay/log_row.h"

namespace gradwarden::replay {

// Finds the format by the content.
LogContent read_log(std::string_view bytes, const ColumnChoice& choice);

// CSV, TSV and semicolons, with a header.
bool looks_like_csv(std::string_view bytes, const ColumnChoice& choice);
LogContent read_csv(std::string_view bytes, const ColumnChoice& choice);

// One JSON object per line: trainers' own logs, W&B history exports.
LogContent read_json_lines(std::string_view bytes, const ColumnChoice& choice);
// One JSON document: trainer_state.json, a list of records.
bool looks_like_json(std::string_view bytes);
LogContent read_json_document(std::string_view bytes, const ColumnChoice& choice);

// JSON lines that `gradwarden export` printed.
bool looks_like_export(std::string_view bytes);
LogContent read_export(std::string_view bytes);

// Lines for people: Megatron, nanoGPT, build-nanogpt, llm.c, meters, overflow lines.
LogContent read_text(std::string_view bytes);

// TensorBoard event files.
bool looks_like_event_file(std::string_view bytes);
LogContent read_event_file(std::string_view bytes, const ColumnChoice& choice);

// Takes the next line, without its end, off `bytes`. `ended` is false for a last line that may have
// been cut.
struct Line {
  std::string_view text;
  bool ended = true;
};
std::optional<Line> next_line(std::string_view& bytes);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_READERS_H_
