// What /metrics shows of each run, in a bounded set: a run enters with its first stream and leaves
// a while after its last report, once it finished or nobody holds its values any more; no more than
// `max_runs` are there at once. Those that find no place are counted together, as the run "other".
//
// Threads: a run's values are written by the worker that owns it, once per batch, and copied by
// scrapes; each side holds the run's own lock for the copy only.
#ifndef GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_
#define GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_

#include <array>
#include <compare>
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

// Multiples of the rolling mean; each bucket holds what is at most its bound and above the last.
struct RatioHistogram {
  static constexpr std::array<double, 12> kBounds = {0.25, 0.5, 0.75, 1,  1.25, 1.5,
                                                     2,    3,   5,    10, 30,   100};
  void observe(double ratio);
  void add(const RatioHistogram& other);
  std::array<std::uint64_t, kBounds.size() + 1> buckets{};  // not cumulative; the last one is +Inf
  double sum = 0;
};

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
  RatioHistogram norm_ratios;
  std::vector<std::pair<std::string, double>> group_norms;
  std::vector<std::pair<std::uint32_t, double>> rank_norm_ratios;  // of outliers
  std::uint64_t audited_replicas = 0;
  std::uint64_t replica_mismatches = 0;
  std::optional<std::uint64_t> last_checkpoint_step;
  std::uint64_t step = 0;
  std::uint64_t steps = 0;
  std::uint64_t clipped = 0;
  std::uint64_t non_finite = 0;
  std::map<std::string, std::uint64_t> skipped;  // by reason
  struct EventLabels {
    std::string kind;
    std::string severity;
    std::string cause;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 takes what the compiler writes for ours
    auto operator<=>(const EventLabels&) const = default;
  };
  std::map<EventLabels, std::uint64_t> events;
  std::map<std::string, std::int64_t> open;  // by kind
  std::uint64_t last_report_ns = 0;
  std::uint64_t dropped = 0;
  std::uint64_t pending = 0;
  bool finished = false;
  bool shared = false;  // of many runs: only what adds up
};

class RunMetrics {
 public:
  explicit RunMetrics(bool shared = false) : shared_(shared) { values_.shared = shared; }
  // Of all runs that have no place of their own.
  bool shared() const { return shared_; }
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
  const bool shared_;
  mutable std::mutex mutex_;
  RunValues values_;
};

class RunRegistry {
 public:
  static constexpr const char* kOther = "other";

  explicit RunRegistry(std::size_t max_runs, std::uint64_t retention_ns)
      : max_runs_(max_runs), retention_ns_(retention_ns) {}

  // Those of kOther if the set is full even after what is past its retention has left, and for a
  // run of that name.
  std::shared_ptr<RunMetrics> acquire(const std::string& run, std::uint64_t now_ns);
  // Attempts in memory that are counted under kOther.
  std::size_t others() const { return static_cast<std::size_t>(other_.use_count()) - 1; }
  // Sorted by name, but for kOther, which comes last and only if it has something to show.
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
  const std::shared_ptr<RunMetrics> other_ = std::make_shared<RunMetrics>(/*shared=*/true);
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_RUN_METRICS_H_
