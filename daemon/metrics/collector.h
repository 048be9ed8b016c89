// The page behind GET /metrics: a prometheus-cpp Collectable over snapshots of the daemon's
// counters and the runs, so that a scrape never holds a lock that ingest waits for.
//
// Any thread; calls may overlap.
#ifndef GRADWARDEN_DAEMON_METRICS_COLLECTOR_H_
#define GRADWARDEN_DAEMON_METRICS_COLLECTOR_H_

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/run_metrics.h"

namespace gradwarden::metrics {

class Collector final : public prometheus::Collectable {
 public:
  using Clock = std::function<std::uint64_t()>;  // Unix nanoseconds

  Collector(const DaemonMetrics& daemon, RunRegistry& runs, std::string version, Clock clock);

  std::vector<prometheus::MetricFamily> Collect() const override;
  // The text exposition format.
  std::string text() const;

 private:
  void collect_daemon(std::vector<prometheus::MetricFamily>& out) const;

  const DaemonMetrics& daemon_;
  RunRegistry& runs_;
  const std::string version_;
  const Clock clock_;
  const std::uint64_t started_ns_;
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_COLLECTOR_H_
