// The daemon's own counters. Every member is atomic: any thread counts, a scrape reads.
#ifndef GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_
#define GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gradwarden::metrics {

using Count = std::atomic<std::uint64_t>;

inline void count(Count& counter, std::uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

// Bounded by its bucket bounds; sums in nanoseconds to stay atomic.
class DurationHistogram {
 public:
  static constexpr std::array<double, 11> kBounds = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03,
                                                     0.1,    0.3,    1.0,   3.0,   10.0};
  void observe(double seconds);
  std::uint64_t bucket(std::size_t index) const { return buckets_[index].load(); }
  double sum() const { return static_cast<double>(sum_ns_.load()) * 1e-9; }

 private:
  std::array<Count, kBounds.size() + 1> buckets_{};  // not cumulative; the last one is +Inf
  Count sum_ns_{0};
};

// The limits that can act, each named after its configuration key.
enum class Limit : std::uint8_t {
  kStreams,
  kRuns,
  kMessageBytes,
  kQueueBytes,
  kMemoryBytes,
  kMetricsRuns,
  kWatchers,
  kWatchQueue,
  kQueries
};
inline constexpr std::array<const char*, 9> kLimitNames = {
    "grpc.max_streams",   "ingest.max_runs",     "message_bytes",
    "ingest.queue_bytes", "ingest.memory_bytes", "metrics.max_runs",
    "query.max_watchers", "query.watch_queue",   "query.max_waiting"};

// Why somebody was refused.
enum class Denial : std::uint8_t { kNoToken, kUnknownToken, kScope, kCertificate };
inline constexpr std::array<const char*, 4> kDenialNames = {"no_token", "unknown_token", "scope",
                                                            "certificate"};

// Of one that alerts are sent to.
struct SinkMetrics {
  std::string type;
  Count delivered{0}, refused{0};  // alerts
  Count failed{0};                 // alerts in a message that was not taken and is sent again
  Count waiting{0};                // a gauge: alerts that are due and not delivered
};

struct DaemonMetrics {
  Count received{0}, stored{0}, duplicate{0}, rejected{0}, late{0};
  Count streams{0};  // a gauge
  // By gRPC status code.
  std::array<Count, 17> streams_refused{};
  Count queue_messages{0}, queue_bytes{0};  // gauges
  // Gauges: memory charged to messages under way and to runs.
  Count message_memory{0}, run_memory{0};
  std::array<Count, kLimitNames.size()> limited{};
  DurationHistogram commit_seconds;
  DurationHistogram ingest_lag;  // from a message's arrival to its commit
  Count store_errors{0};
  std::atomic<bool> store_failing{false};
  Count watchers{0};  // a gauge
  std::array<Count, kDenialNames.size()> requests_denied{};
  std::vector<SinkMetrics> sinks;  // made before anybody counts or scrapes
  Count reloads{0}, reload_failures{0};
  Count store_bytes{0};     // a gauge
  Count pruned_reports{0};  // deleted for their age or the size of the history
  Count damaged_files{0};   // set aside at the start
  Count recovered_reports{0}, unrecovered_rows{0};
  std::atomic<std::int64_t> certificate_expires{0};  // Unix seconds; 0: no TLS

  void denied(Denial reason) { count(requests_denied[static_cast<std::size_t>(reason)]); }
  void limit_acted(Limit limit) { count(limited[static_cast<std::size_t>(limit)]); }
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_
