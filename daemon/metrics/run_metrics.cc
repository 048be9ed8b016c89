#include "daemon/metrics/run_metrics.h"

#include <algorithm>

namespace gradwarden::metrics {

void RatioHistogram::observe(double ratio) {
  const auto* bound = std::lower_bound(kBounds.begin(), kBounds.end(), ratio);
  ++buckets[static_cast<std::size_t>(bound - kBounds.begin())];
  sum += ratio;
}

void RatioHistogram::add(const RatioHistogram& other) {
  for (std::size_t i = 0; i < buckets.size(); ++i) buckets[i] += other.buckets[i];
  sum += other.sum;
}

std::shared_ptr<RunMetrics> RunRegistry::acquire(const std::string& run, std::uint64_t now_ns) {
  if (run == kOther) return other_;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = runs_.find(run);
  if (found != runs_.end()) {
    found->second.since_ns = now_ns;
    return found->second.metrics;
  }
  if (runs_.size() >= max_runs_) remove_gone(now_ns);
  if (runs_.size() >= max_runs_) return other_;
  auto metrics = std::make_shared<RunMetrics>();
  runs_.emplace(run, Entry{metrics, now_ns});
  return metrics;
}

std::vector<std::pair<std::string, RunValues>> RunRegistry::collect(std::uint64_t now_ns) {
  std::vector<std::pair<std::string, std::shared_ptr<RunMetrics>>> runs;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    remove_gone(now_ns);
    for (const auto& [name, entry] : runs_) runs.emplace_back(name, entry.metrics);
  }
  std::vector<std::pair<std::string, RunValues>> values;
  values.reserve(runs.size());
  for (const auto& [name, metrics] : runs) values.emplace_back(name, metrics->copy());
  RunValues other = other_->copy();
  if (other.steps != 0) values.emplace_back(kOther, std::move(other));
  return values;
}

// A run whose attempt is in memory stays however long it is silent: to leave would look like a run
// that is well again, and no Hello brings it back within its stream. Once it finished it may go.
void RunRegistry::remove_gone(std::uint64_t now_ns) {
  std::erase_if(runs_, [&](const auto& item) {
    const Entry& entry = item.second;
    const RunValues values = entry.metrics->copy();
    const bool held = entry.metrics.use_count() > 1 && !values.finished;
    return !held && std::max(entry.since_ns, values.last_report_ns) + retention_ns_ < now_ns;
  });
}

}  // namespace gradwarden::metrics
