// The daemon's memory for what it was sent: messages that are under way, and what it holds of each
// run. Says whether a stream may be read on, and refuses what does not fit.
//
// Every message is charged to its run until it is answered. A run may have no more under way than
// what is still free: one run that sends without an end gets half of the queue, two get a third
// each, and there is always room for a run that sends little. All members may be used from any
// thread and never block.
#ifndef GRADWARDEN_DAEMON_INGEST_ADMISSION_H_
#define GRADWARDEN_DAEMON_INGEST_ADMISSION_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "daemon/metrics/daemon_metrics.h"

namespace gradwarden::ingest {

struct IngestOptions;

// Those of the options that may change while the daemon runs. Any thread.
struct LiveLimits {
  explicit LiveLimits(const IngestOptions& options) { set(options); }
  void set(const IngestOptions& options);
  std::atomic<std::size_t> queue_bytes{0};
  std::atomic<std::size_t> memory_bytes{0};
  std::atomic<std::uint32_t> max_streams{0};
  std::atomic<std::uint64_t> max_runs{0};
};

class Admission {
 public:
  // What a message costs beside its bytes: the item of the commit, with the detector's state in it.
  static constexpr std::size_t kMessageCost = 12 << 10;
  static constexpr std::size_t cost(std::size_t bytes) { return bytes + kMessageCost; }

  Admission(const LiveLimits& limits, metrics::DaemonMetrics& metrics)
      : limits_(limits), queued_(metrics.message_memory), state_(metrics.run_memory) {}

  // A stream of the run (which has `run_cost` under way) may be read on.
  bool may_read(std::size_t run_cost) const;
  // So little is under way that all streams may be read on. It lies well below where the first one
  // is held, so that streams are not held and let go with every message.
  bool relaxed() const { return queued_.load() < queue_limit() / 8 * 3; }
  // False: memory is used up, nothing was charged, and the message is to be refused with a delay.
  bool take(std::atomic<std::size_t>& run_cost, std::size_t bytes);
  void release(std::atomic<std::size_t>& run_cost, std::size_t bytes);

  // Memory of runs: half of all at most.
  bool has_room_for_state(std::size_t bytes) const {
    return state_.load() + bytes <= limits_.memory_bytes / 2;
  }
  void change_state(std::size_t before, std::size_t after) { state_.fetch_add(after - before); }
  // Beyond this, runs without streams make room for others.
  std::size_t idle_limit() const { return limits_.memory_bytes / 8; }

 private:
  std::size_t queue_limit() const;

  const LiveLimits& limits_;
  metrics::Count& queued_;  // kept where a scrape sees them
  metrics::Count& state_;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_ADMISSION_H_
