#include "daemon/metrics/daemon_metrics.h"

#include <algorithm>

namespace gradwarden::metrics {

void DurationHistogram::observe(double seconds) {
  const auto bound = std::lower_bound(kBounds.begin(), kBounds.end(), seconds);
  count(buckets_[static_cast<std::size_t>(bound - kBounds.begin())]);
  count(sum_ns_, static_cast<std::uint64_t>(seconds * 1e9));
}

}  // namespace gradwarden::metrics
