// What /metrics shows of each run, in a bounded set: a run enters with its first stream and leaves
// a while after its last report, and no more than `max_runs` are there at once.
//
// Threads: a run's values are written by the worker that owns it, once per batch, and copied by
// scrapes; each side holds the run's own lock for the copy only.
#ifndef GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_
#define GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gradwarden::metrics {

struct RunValues {
  bool any_step = false;
  double grad_norm = 0;
  double rolling_mean = 0;  // 0: none yet
  double threshold = 0;     // 0: none yet
  double clip_coefficient = 1;
  std::optional<double> loss;
  std::optional<double> learning_rate;
  std::optional<double> loss_scale;
  std::optional<double> gradient_noise_scale;
  std::map<std::string, double> signal_norms;  // by signal, as last observed
  std::uint64_t audited_replicas = 0;
  std::uint64_t replica_mismatches = 0;
  std::optional<std::uint64_t> last_checkpoint_step;
  std::uint64_t step = 0;
  std::uint64_t steps = 0;
  std::uint64_t clipped = 0;
  std::uint64_t non_finite = 0;
  std::map<std::string, std::uint64_t> skipped;                         // by reason
  std::map<std::pair<std::string, std::string>, std::uint64_t> events;  // by kind and severity
  std::map<std::string, std::int64_t> open;                             // by kind
  std::uint64_t last_report_ns = 0;
  std::uint64_t dropped = 0;
  std::uint64_t pending = 0;
  bool finished = false;
};

class RunMetrics {
 public:
  template <typename Change>
  void update(Change change) {
    const std::lock_guard<std::mutex> lock(mutex_);
    change(values_);
  }
  RunValues copy() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return values_;
  }

 private:
  mutable std::mutex mutex_;
  RunValues values_;
};

class RunRegistry {
 public:
  explicit RunRegistry(std::size_t max_runs, std::uint64_t retention_ns)
      : max_runs_(max_runs), retention_ns_(retention_ns) {}

  // Null if the set is full even after what is past its retention has left.
  std::shared_ptr<RunMetrics> acquire(const std::string& run, std::uint64_t now_ns);
  std::vector<std::pair<std::string, RunValues>> collect(std::uint64_t now_ns);

 private:
  void remove_gone(std::uint64_t now_ns);

  const std::size_t max_runs_;
  const std::uint64_t retention_ns_;
  std::mutex mutex_;
  struct Entry {
    std::shared_ptr<RunMetrics> metrics;
    std::uint64_t since_ns = 0;
  };
  std::map<std::string, Entry> runs_;  // guarded by mutex_
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_
