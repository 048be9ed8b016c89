// What one batch adds to the metrics of its run. Plain data and one function; the worker's own.
#ifndef GRADWARDEN_DAEMON_INGEST_TALLY_H_
#define GRADWARDEN_DAEMON_INGEST_TALLY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/ingest/attempt.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden::ingest {

struct Tally {
  std::uint64_t steps = 0;
  std::uint64_t clipped = 0;
  std::uint64_t non_finite = 0;
  std::uint64_t audited_replicas = 0;
  std::uint64_t mismatches = 0;  // of replicas declared identical
  std::vector<v1::Reason> skips;
  // The latest of the batch; seldom in every step.
  std::optional<double> gradient_noise_scale;
  std::map<std::string, double> signal_norms;
  metrics::RatioHistogram norm_ratios;
  // Of the last report with local norms: ranks far from the median of all.
  std::optional<std::vector<std::pair<std::uint32_t, double>>> rank_norm_ratios;

  // A report of rank 0.
  void add(const v1::Report& report);
  void clear();
};

// Brings the run's metrics up to date, if it is shown. `latest` is the report of the attempt's last
// step, if the batch has it.
void publish(Attempt& attempt, const Tally& tally, const std::vector<detect::Finding>& findings,
             const v1::Report* latest);

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_TALLY_H_
