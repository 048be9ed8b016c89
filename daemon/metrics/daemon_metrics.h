// The daemon's own counters. Every member is atomic: any thread counts, a scrape reads.
#ifndef GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_
#define GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

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
  kMetricsRuns,
  kWatchers,
  kWatchQueue,
  kQueries
};
inline constexpr std::array<const char*, 8> kLimitNames = {
    "grpc.max_streams", "ingest.max_runs",    "message_bytes",     "ingest.queue_bytes",
    "metrics.max_runs", "query.max_watchers", "query.watch_queue", "query.max_waiting"};

struct DaemonMetrics {
  Count received{0}, stored{0}, duplicate{0}, rejected{0}, late{0};
  Count streams{0};  // a gauge
  // By gRPC status code.
  std::array<Count, 17> streams_refused{};
  Count queue_messages{0}, queue_bytes{0};  // gauges
  std::array<Count, kLimitNames.size()> limited{};
  DurationHistogram commit_seconds;
  Count store_errors{0};
  std::atomic<bool> store_failing{false};
  Count watchers{0};  // a gauge

  void limit_acted(Limit limit) { count(limited[static_cast<std::size_t>(limit)]); }
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_DAEMON_METRICS_H_
