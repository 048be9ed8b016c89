// What all workers of the ingest share: settings, and the parts of the daemon that they hand on to.
// Built once by app/ and outlives every worker. All members may be used from any thread.
#ifndef GRADWARDEN_DAEMON_INGEST_CONTEXT_H_
#define GRADWARDEN_DAEMON_INGEST_CONTEXT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/detect/default_detector.h"
#include "daemon/ingest/admission.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/metrics/run_metrics.h"
#include "daemon/store/commit_writer.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::security {
class Access;
}

namespace gradwarden::ingest {

struct IngestOptions {
  unsigned workers = 0;                // 0: one per core
  std::size_t queue_bytes = 64 << 20;  // received and not yet answered, all streams together
  // For messages under way, the network's buffers and what is known of runs: see Admission.
  std::size_t memory_bytes = 256 << 20;
  unsigned stream_window = 256;  // messages of one stream received and not yet answered
  std::uint32_t max_streams = 4096;
  std::uint64_t max_runs = 10000;
  detect::DetectorOptions detector;
  // The first pattern (as of a shell) that matches the run's name wins.
  std::vector<std::pair<std::string, detect::DetectorOptions>> detector_overrides;
};

struct IngestContext {
  IngestOptions options;
  std::string version;
  store::Store& store;
  store::CommitWriter& writer;
  metrics::DaemonMetrics& metrics;
  metrics::RunRegistry& runs;
  // Called after the commit, or when it fails, on the writer's thread, for events that began or
  // ended.
  std::function<void(const v1::Event&)> publish;
  std::function<std::uint64_t()> now_ns;  // Unix time
  security::Access* access = nullptr;     // null: nobody is asked for a token
  unsigned worker_count = 1;
  LiveLimits limits{options};
  Admission admission{limits, metrics};

  std::atomic<std::int64_t> last_run_id{0};
  std::atomic<std::int64_t> last_attempt_id{0};
  std::atomic<std::uint64_t> last_event_id{0};
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_CONTEXT_H_
