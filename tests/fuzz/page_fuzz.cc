// What the page, the command line's history and the summaries make of stored rows that are damaged
// and still can be parsed: a hello, then rows of reports and of events, as pieces (input.h), after
// one byte each for the kind and the numbers that stand in columns of their own.
//
// Rows come in any order and may contradict each other; every answer has to be JSON or an error.
#include <google/protobuf/stubs/logging.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "daemon/page/page_data.h"
#include "tests/fuzz/input.h"

namespace gradwarden::fuzz {
namespace {

// Small numbers, and now and then one at the end of what there is.
std::uint64_t take_number(std::string_view& bytes) {
  const std::uint8_t byte = take_byte(bytes);
  if (byte >= 0xf0) return std::numeric_limits<std::uint64_t>::max() - (byte - 0xf0);
  return byte < 0x80 ? byte : std::uint64_t{byte} << (byte % 48);
}

// A history of one run and one attempt, whose rows are the input's.
class StoredRows : public store::StoreReader {
 public:
  explicit StoredRows(std::string_view bytes) {
    attempt_.row = {1, 1, "a1", 1, 5, std::string(take_piece(bytes))};
    store::AttemptProgress& progress = attempt_.progress;
    progress.step_reports = take_number(bytes);
    progress.first_step = take_number(bytes);
    progress.last_step = take_number(bytes);
    progress.reports = progress.step_reports;
    while (!bytes.empty()) take_row(bytes);
    std::sort(segments_.begin(), segments_.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first_step, a.id) < std::pair(b.first_step, b.id);
    });
  }

  absl::StatusOr<store::HighestIds> highest_ids() override { return store::HighestIds{1, 1, 9}; }
  absl::StatusOr<std::vector<store::RunRow>> runs() override { return std::vector{run_}; }
  absl::StatusOr<std::optional<store::RunRow>> run(std::string_view) override {
    return std::optional(run_);
  }
  absl::StatusOr<std::vector<store::Attempt>> attempts(std::int64_t) override {
    return std::vector{attempt_};
  }
  absl::StatusOr<std::optional<store::Attempt>> attempt(std::int64_t, std::string_view) override {
    return std::optional(attempt_);
  }
  absl::StatusOr<std::vector<store::Range>> stored_sequences(std::int64_t, std::uint32_t) override {
    return std::vector<store::Range>{};
  }
  absl::StatusOr<std::vector<store::Segment>> segments(std::int64_t, std::uint64_t first,
                                                       std::uint64_t last, Position after,
                                                       std::size_t) override {
    for (const store::Segment& segment : segments_) {
      if (segment.last_step < first || segment.first_step > last) continue;
      if (std::pair(segment.first_step, segment.id) > std::pair(after.first_step, after.id)) {
        return std::vector{segment};
      }
    }
    return std::vector<store::Segment>{};
  }
  absl::StatusOr<std::vector<store::Rollup>> rollups(std::int64_t, std::uint32_t, std::uint64_t,
                                                     std::uint64_t) override {
    return rollups_;
  }
  absl::StatusOr<std::optional<store::Flight>> flight(std::int64_t, std::optional<std::uint64_t>,
                                                      std::optional<std::uint32_t>) override {
    return std::optional<store::Flight>{};
  }
  absl::StatusOr<std::vector<std::uint32_t>> flight_ranks(std::int64_t, std::uint64_t,
                                                          std::uint32_t) override {
    return std::vector<std::uint32_t>{};
  }
  absl::StatusOr<std::vector<std::uint64_t>> checkpoints(std::int64_t, std::uint32_t) override {
    return std::vector<std::uint64_t>{3, 7};
  }
  absl::StatusOr<std::vector<std::string>> events(std::int64_t, std::int64_t,
                                                  std::uint64_t after_id,
                                                  std::uint32_t limit) override {
    std::vector<std::string> found;
    for (std::size_t id = after_id; id < events_.size() && found.size() < limit; ++id) {
      found.push_back(events_[id]);
    }
    return found;
  }
  absl::StatusOr<std::vector<std::string>> open_events(std::int64_t, std::int64_t,
                                                       std::uint32_t) override {
    return events_;
  }
  absl::StatusOr<store::EventCounts> event_counts(std::int64_t) override {
    return store::EventCounts{events_.size(), 0};
  }

 private:
  void take_row(std::string_view& bytes) {
    switch (take_choice(bytes) % 3) {
      case 0: {
        store::Segment segment;
        segment.id = static_cast<std::int64_t>(segments_.size()) + 1;
        segment.first_step = take_number(bytes);
        segment.last_step = take_number(bytes);
        segment.data = take_piece(bytes);
        segments_.push_back(std::move(segment));
        return;
      }
      case 1:
        events_.emplace_back(take_piece(bytes));
        return;
      default: {
        store::Rollup rollup;
        rollup.first_step = take_number(bytes);
        rollup.last_step = take_number(bytes);
        rollup.reports = take_number(bytes);
        rollup.finite_norms = take_number(bytes);
        rollup.norm_min = static_cast<double>(take_number(bytes));
        rollup.norm_max = static_cast<double>(take_number(bytes));
        rollups_.push_back(rollup);
      }
    }
  }

  const store::RunRow run_{1, "run", 5};
  store::Attempt attempt_;
  std::vector<store::Segment> segments_;
  std::vector<std::string> events_;
  std::vector<store::Rollup> rollups_;
};

void check(const absl::StatusOr<std::string>& answer) {
  promise(!answer.ok() || nlohmann::json::accept(*answer), "an answer is JSON");
}

}  // namespace
}  // namespace gradwarden::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace gradwarden;
  google::protobuf::SetLogHandler(nullptr);
  fuzz::StoredRows rows(fuzz::text_of(data, size));
  fuzz::check(page::runs_json(rows));
  fuzz::check(page::run_json(rows, "run"));
  const page::Range all{.run = "run", .attempt = "", .points = 20};
  const page::Range part{.run = "run", .attempt = "a1", .first = 3, .last = 70, .points = 5};
  for (const page::Range& range : {all, part}) {
    fuzz::check(page::history_json(rows, range));
    fuzz::check(page::events_json(rows, range));
    fuzz::check(page::groups_json(rows, range));
    fuzz::check(page::ranks_json(rows, range));
  }
  return 0;
}
