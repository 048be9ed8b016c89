#include "daemon/replay/log_follower.h"

#include <algorithm>
#include <utility>

namespace gradwarden::replay {
namespace {

// A format is judged by so much, or by what there is once the log has settled.
constexpr std::size_t kEnoughToJudge = 4096;
// What a piece of lines is at most held back for, when nothing in it can be read.
constexpr std::size_t kMostPending = 16 << 20;

}  // namespace

void LogFollower::find_style() {
  if (pending_.find('\n') == std::string::npos && !looks_like_event_file(pending_)) return;
  if (looks_like_event_file(pending_)) {
    style_ = Style::kDocument;
    return;
  }
  const std::string_view first = std::string_view(pending_).substr(0, pending_.find('\n'));
  const bool object = looks_like_json(pending_);
  if (object && first.find('}') == std::string_view::npos) {
    style_ = Style::kDocument;
    return;
  }
  style_ = Style::kLines;
  if (!object && looks_like_csv(pending_, choice_)) head_ = std::string(first) + "\n";
  if (!head_.empty()) pending_.erase(0, head_.size());
}

std::vector<LogRow> LogFollower::append(std::string_view bytes) {
  pending_.append(bytes);
  if (style_ == Style::kUnknown && pending_.size() >= kEnoughToJudge) find_style();
  if (style_ == Style::kUnknown) return {};
  return style_ == Style::kLines ? read_lines(false) : std::vector<LogRow>();
}

std::vector<LogRow> LogFollower::settle() {
  if (style_ == Style::kUnknown) find_style();
  if (style_ == Style::kUnknown) return {};
  return style_ == Style::kLines ? read_lines(true) : read_document();
}

// Text keeps what overflow lines told until a row takes it, which may be pieces later.
LogContent LogFollower::read_piece(const std::string& bytes) {
  if (head_.empty() && !looks_like_json(bytes) && !looks_like_csv(bytes, choice_)) {
    LogContent text = read_text_piece(bytes, overflows_);
    if (!text.rows.empty()) return text;
  }
  return read_log(bytes, choice_);
}

// Whole lines only. The last row stays with the collector, as what follows may complete it.
std::vector<LogRow> LogFollower::read_lines(bool settled) {
  const std::size_t whole = pending_.find_last_of('\n') + 1;
  const std::size_t take = pending_.size() > kMostPending ? pending_.size() : whole;
  if (take != 0) {
    LogContent content = read_piece(head_ + pending_.substr(0, take));
    unreadable_ += content.unreadable;
    pending_.erase(0, take);
    if (content.counted_steps && steps_seen_) {
      // A summary among rows with steps: counted, it would lie behind them and look like a restart.
      unreadable_ += content.rows.size();
      content.rows.clear();
    }
    if (!content.rows.empty()) {
      format_ = content.format;
      steps_seen_ = !content.counted_steps;
    }
    for (LogRow& row : content.rows) {
      if (content.counted_steps) row.step = rows_told_ + row.step.value_or(0);
      collector_.add(row);
    }
    rows_told_ += content.rows.size();
  }
  if (settled) collector_.finish();
  return std::exchange(collected_.rows, {});
}

std::vector<LogRow> LogFollower::read_document() {
  LogContent content = read_log(pending_, choice_);
  if (!content.rows.empty()) format_ = content.format;
  unreadable_ = content.unreadable;
  const std::uint64_t known = std::min<std::uint64_t>(rows_told_, content.rows.size());
  content.rows.erase(content.rows.begin(),
                     content.rows.begin() + static_cast<std::ptrdiff_t>(known));
  rows_told_ += content.rows.size();
  return std::move(content.rows);
}

void LogFollower::restart() {
  const bool document = style_ == Style::kDocument;
  style_ = Style::kUnknown;
  head_.clear();
  pending_.clear();
  // A document is written anew each time, with what it had before.
  if (!document) rows_told_ = 0;
}

}  // namespace gradwarden::replay
