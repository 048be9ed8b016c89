// One attempt of a run as its worker holds it: identity, what is known of each rank, the detector
// and the totals. Created from a Hello or loaded from the store; one worker owns it, no locks.
#ifndef GRADWARDEN_DAEMON_INGEST_ATTEMPT_H_
#define GRADWARDEN_DAEMON_INGEST_ATTEMPT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "daemon/diagnose/monitor.h"
#include "daemon/ingest/interval_set.h"
#include "daemon/metrics/group_norms.h"
#include "daemon/metrics/run_metrics.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/ingest.pb.h"
#include "proto/validate.h"

namespace gradwarden::ingest {

struct RankState {
  IntervalSet seen;  // committed or on the way to it
  std::uint64_t last_seen_ns = 0;
  std::uint64_t step = 0;
  v1::Phase phase = v1::PHASE_UNSPECIFIED;
  std::uint64_t dropped = 0;
  std::uint64_t pending = 0;
};

struct Attempt {
  Attempt(std::string run_name, std::int64_t run, store::AttemptRow attempt_row,
          const detect::DetectorOptions& options)
      : run_name(std::move(run_name)),
        run_id(run),
        row(std::move(attempt_row)),
        detector(options) {}

  AttemptShape shape(std::uint32_t rank) const;
  // What a rank says it dropped and holds back; 0 never takes back what was dropped.
  void note_backlog(RankState& rank, std::uint64_t dropped_reports, std::uint64_t pending_reports);
  // Nobody is blamed for a silence before this time.
  void listen_from(std::uint64_t now_ns);
  // An event says that the run no longer reports.
  bool stalled() const;
  // The detector's state and the ids of the events that its open incidents became.
  std::string save_state() const;
  absl::Status restore_state(std::string_view bytes);
  // About what it takes in memory.
  static std::size_t memory_for(std::size_t groups, std::size_t ranks);

  const std::string run_name;
  const std::int64_t run_id;
  const store::AttemptRow row;
  std::uint32_t world_size = 1;
  // Silence before this is the daemon's own: it was away, or stopped.
  std::uint64_t watched_since_ns = 0;
  bool leftover = false;  // a later attempt sends what this one left on disk
  std::optional<std::uint64_t> previous_attempt_end;  // the last step of the attempt before
  std::vector<std::string> groups;

  std::map<std::uint32_t, RankState> ranks;
  diagnose::Monitor detector;
  std::map<std::uint64_t, std::uint64_t> event_ids;  // of open incidents, by key
  store::AttemptProgress progress;                   // without `state`
  std::optional<std::uint64_t> last_checkpoint;      // the highest step of a completed one
  metrics::GroupNorms group_norms;
  std::shared_ptr<metrics::RunMetrics> metrics;

  std::uint64_t dropped = 0;  // sums over the ranks, as they say
  std::uint64_t pending = 0;

  std::size_t charged = 0;  // of the memory for runs
  unsigned sessions = 0;    // open streams
  std::uint64_t idle_since_ns = 0;
  // Items under way to the store; only the writer's completions take away from it.
  std::shared_ptr<std::atomic<std::uint64_t>> in_flight =
      std::make_shared<std::atomic<std::uint64_t>>(0);
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_ATTEMPT_H_
