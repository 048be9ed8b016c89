// Rows of a log that grows, each of them once. Lines are read as they come; formats that are one
// document (trainer_state.json, event files) are read anew as a whole, and what was told before is
// left out.
//
// No files: who reads the log hands on its bytes. Not thread-safe.
#ifndef GRADWARDEN_DAEMON_REPLAY_LOG_FOLLOWER_H_
#define GRADWARDEN_DAEMON_REPLAY_LOG_FOLLOWER_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/replay/overflows.h"
#include "daemon/replay/readers.h"
#include "daemon/replay/row_collector.h"

namespace gradwarden::replay {

class LogFollower {
 public:
  explicit LogFollower(ColumnChoice choice) : choice_(std::move(choice)) {}
  LogFollower(const LogFollower&) = delete;
  LogFollower& operator=(const LogFollower&) = delete;

  // Bytes were added at the end. The last row is held back until another follows, or settle():
  // the records that complete it may still come.
  std::vector<LogRow> append(std::string_view bytes);
  // Nothing came for a while: the last row is complete.
  std::vector<LogRow> settle();
  // The file is another one, or was cut: what comes next is its beginning. Of a document, which is
  // written anew each time, the rows told before are left out.
  void restart();

  std::uint64_t unreadable() const { return unreadable_; }
  const std::string& format() const { return format_; }

 private:
  enum class Style { kUnknown, kLines, kDocument };

  void find_style();
  LogContent read_piece(const std::string& bytes);
  std::vector<LogRow> read_lines(bool settled);
  std::vector<LogRow> read_document();

  const ColumnChoice choice_;
  Style style_ = Style::kUnknown;
  std::string format_;
  std::string head_;     // the header of a CSV, put before each piece
  std::string pending_;  // bytes not told of yet
  LogContent collected_;
  RowCollector collector_{collected_};  // joins what several lines tell of one step
  Overflows overflows_;
  bool steps_seen_ = false;  // the log names its steps: a row without one is none
  std::uint64_t rows_told_ = 0;
  std::uint64_t unreadable_ = 0;
};

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_LOG_FOLLOWER_H_
