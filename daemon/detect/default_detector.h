// The rules that every run gets: spikes, non-finite values, replicas that differ, ranks that stand
// out, stalls, and the rules for single quantities (rule_set.h). Puts them together, keeps steps in
// order and saves the state of all of them as one versioned string.
//
// Not thread-safe: one worker owns it.
#ifndef GRADWARDEN_DAEMON_DETECT_DEFAULT_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_DEFAULT_DETECTOR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "daemon/detect/detector.h"
#include "daemon/detect/group_norms.h"
#include "daemon/detect/non_finite_detector.h"
#include "daemon/detect/options.h"
#include "daemon/detect/rank_outlier_detector.h"
#include "daemon/detect/replica_detector.h"
#include "daemon/detect/rule_set.h"
#include "daemon/detect/spike_detector.h"
#include "daemon/detect/stall_detector.h"

namespace gradwarden::detect {

class DefaultDetector final : public Detector {
 public:
  explicit DefaultDetector(const DetectorOptions& options);

  bool observe(const Step& step, std::vector<Finding>& findings) override;
  void observe_origin(std::uint64_t step, const NonFiniteOrigin& origin,
                      std::vector<Finding>& findings) override;
  void observe_time(const Liveness& liveness, std::vector<Finding>& findings) override;
  void finish(std::vector<Finding>& findings) override;
  Judgement judgement() const override { return spike_.judgement(); }
  std::vector<Incident> open_incidents() const override;
  void save(std::string& out) const override;
  absl::Status restore(std::string_view bytes) override;

 private:
  void reset();

  const DetectorOptions options_;
  SpikeDetector spike_;
  NonFiniteDetector non_finite_;
  ReplicaDetector replicas_;
  RankOutlierDetector outlier_;
  GroupNorms groups_;
  RuleSet rules_;
  StallDetector stall_;
  std::uint64_t next_key_ = 1;
  std::uint64_t last_step_ = 0;
  bool any_step_ = false;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_DEFAULT_DETECTOR_H_
