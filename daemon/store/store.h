// The daemon's memory: runs, attempts, segments of reports, roll-ups, events.
//
// What implements it is free to choose its format; callers see plain rows. Payloads (reports,
// events, hellos, detector state) are opaque bytes here.
//
// Threads: one thread calls Store::commit. Each StoreReader has its own view of committed data,
// never makes a commit wait, and is used by one thread at a time.
#ifndef GRADWARDEN_DAEMON_STORE_STORE_H_
#define GRADWARDEN_DAEMON_STORE_STORE_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/store/rollup.h"

namespace gradwarden::store {

using Range = std::pair<std::uint64_t, std::uint64_t>;  // inclusive

// Consecutive sequences of one (attempt, rank): a serialized gradwarden.v1.ReportBatch.
struct Segment {
  std::int64_t id = 0;  // set by the store
  std::uint32_t rank = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  std::uint64_t first_step = 0;  // smallest
  std::uint64_t last_step = 0;   // largest
  std::string data;
};

struct EventRow {
  std::uint64_t id = 0;
  std::uint32_t revision = 0;
  std::int64_t run_id = 0;
  std::int64_t attempt_id = 0;
  bool open = false;
  std::string data;  // a serialized gradwarden.v1.Event
};

// A recording of one rank's flight recorder, which ends at the step of an event.
struct Flight {
  std::int64_t attempt_id = 0;  // set by the reader
  std::uint32_t rank = 0;
  std::uint64_t sequence = 0;  // of the report that it came with
  std::uint64_t step = 0;
  std::string data;  // a serialized gradwarden.v1.FlightRecording
};

struct RunRow {
  std::int64_t id = 0;
  std::string name;
  std::uint64_t created_ns = 0;
};

// What is fixed when an attempt begins.
struct AttemptRow {
  std::int64_t id = 0;
  std::int64_t run_id = 0;
  std::string name;
  std::uint32_t ordinal = 0;  // 1 for the first start of the run
  std::uint64_t started_ns = 0;
  std::string hello;  // a serialized gradwarden.v1.Hello
};

// What changes as the attempt goes on; absolute values, so that the latest one replaces all before
// it.
struct AttemptProgress {
  std::uint64_t last_report_ns = 0;
  std::uint64_t reports = 0;       // of all ranks
  std::uint64_t step_reports = 0;  // of rank 0: first_step to grad_norm hold values if above 0
  std::uint64_t first_step = 0;
  std::uint64_t last_step = 0;
  double grad_norm = std::numeric_limits<double>::quiet_NaN();  // of the last step
  std::optional<double> loss = {};
  std::uint64_t clipped = 0;
  std::uint64_t skipped = 0;
  std::uint64_t non_finite = 0;
  std::uint64_t dropped = 0;
  bool finished = false;
  std::string state = {};  // of the detector
};

struct Attempt {
  AttemptRow row;
  AttemptProgress progress;
};

// Delta to the roll-up bucket of level 0 that holds these steps.
struct RollupDelta {
  std::uint64_t bucket = 0;  // step / kBucketSteps[0]
  Rollup rollup;
};

// One unit of work, committed wholly or not at all.
struct CommitItem {
  std::optional<RunRow> new_run;
  std::optional<AttemptRow> new_attempt;
  std::int64_t attempt_id = 0;  // of everything below
  std::vector<Segment> segments;
  std::vector<RollupDelta> rollups;
  std::vector<EventRow> events;
  std::vector<Flight> flights;             // of each rank the newest are kept
  std::vector<std::uint64_t> checkpoints;  // steps; the same one again counts once
  std::optional<AttemptProgress> progress;
};

struct EventCounts {
  std::uint64_t events = 0;
  std::uint64_t open = 0;
};

struct HighestIds {
  std::int64_t run = 0;
  std::int64_t attempt = 0;
  std::uint64_t event = 0;
};

class StoreReader {
 public:
  virtual ~StoreReader() = default;

  virtual absl::StatusOr<HighestIds> highest_ids() = 0;
  virtual absl::StatusOr<std::vector<RunRow>> runs() = 0;
  virtual absl::StatusOr<std::optional<RunRow>> run(std::string_view name) = 0;
  // In order of their start, without detector state.
  virtual absl::StatusOr<std::vector<Attempt>> attempts(std::int64_t run_id) = 0;
  // With detector state.
  virtual absl::StatusOr<std::optional<Attempt>> attempt(std::int64_t run_id,
                                                         std::string_view name) = 0;
  // Joined and in order.
  virtual absl::StatusOr<std::vector<Range>> stored_sequences(std::int64_t attempt_id,
                                                              std::uint32_t rank) = 0;

  // Segments of rank 0 that hold steps in [first, last], in order of (first_step, id), after the
  // given position, until `max_bytes` are exceeded or none is left. A position of {0, 0} is the
  // beginning.
  struct Position {
    std::uint64_t first_step = 0;
    std::int64_t id = 0;
  };
  virtual absl::StatusOr<std::vector<Segment>> segments(std::int64_t attempt_id,
                                                        std::uint64_t first, std::uint64_t last,
                                                        Position after, std::size_t max_bytes) = 0;
  // Buckets of a level that overlap [first, last], in order.
  virtual absl::StatusOr<std::vector<Rollup>> rollups(std::int64_t attempt_id, std::uint32_t level,
                                                      std::uint64_t first, std::uint64_t last) = 0;

  // The last recording, or the one nearest to `step` that may hold it; of one rank, or of the
  // lowest that has one of that step.
  virtual absl::StatusOr<std::optional<Flight>> flight(std::int64_t attempt_id,
                                                       std::optional<std::uint64_t> step,
                                                       std::optional<std::uint32_t> rank) = 0;
  // The ranks that have a recording of exactly this step, in order.
  virtual absl::StatusOr<std::vector<std::uint32_t>> flight_ranks(std::int64_t attempt_id,
                                                                  std::uint64_t step,
                                                                  std::uint32_t limit) = 0;
  // The highest steps of completed checkpoints, in order.
  virtual absl::StatusOr<std::vector<std::uint64_t>> checkpoints(std::int64_t attempt_id,
                                                                 std::uint32_t limit) = 0;

  // Serialized events with an id above `after_id`, in order of id. 0 as run or attempt means all.
  virtual absl::StatusOr<std::vector<std::string>> events(std::int64_t run_id,
                                                          std::int64_t attempt_id,
                                                          std::uint64_t after_id,
                                                          std::uint32_t limit) = 0;
  virtual absl::StatusOr<std::vector<std::string>> open_events(std::int64_t run_id,
                                                               std::int64_t attempt_id,
                                                               std::uint32_t limit) = 0;
  virtual absl::StatusOr<EventCounts> event_counts(std::int64_t run_id) = 0;
};

class Store {
 public:
  virtual ~Store() = default;
  // All items in one transaction. On failure nothing of it is stored and the call may be repeated.
  virtual absl::Status commit(const std::vector<const CommitItem*>& items) = 0;
  virtual absl::StatusOr<std::unique_ptr<StoreReader>> open_reader() = 0;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_STORE_H_
