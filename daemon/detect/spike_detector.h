// Spikes of grad norm and loss. Two rules look at each step:
//   - the rolling-mean rule: a grad norm above a multiple of the mean of the last accepted steps is
//     always an event. The arithmetic is kernels/numerics/spike_rule.h, the very code that the
//     guard in the trainer runs;
//   - the calibrated rule, which knows what is normal for this run, says whether that is more than
//     information, and finds what the first cannot see (a loss spike, a quiet run's small outlier).
// What they flag together or shortly after one another is one incident, named by the signal that
// rose first, the other one joined to it.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/detect/calibrated_detector.h"
#include "daemon/detect/detector.h"
#include "daemon/detect/group_norms.h"
#include "daemon/detect/incident.h"
#include "kernels/numerics/spike_rule.h"

namespace gradwarden::detect {

class SpikeDetector {
 public:
  SpikeDetector(const kernels::SpikeRuleOptions& options, std::uint32_t quiet_steps);

  // Returns true if the step was accepted, that is neither a spike nor non-finite.
  // A group that stands out when a spike begins is named by it.
  bool observe(const Step& step, const GroupVerdict& group, std::uint64_t& next_key,
               std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings) { spikes_.end(findings); }

  Judgement judgement() const { return {last_.mean, last_.threshold}; }
  const Incident* open() const { return spikes_.open(); }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  bool judge_rolling(const Step& step);
  bool calms_down(std::vector<Finding>& findings);
  void flag(const Step& step, const CalibratedVerdict& verdict, const GroupVerdict& group,
            bool rolling, std::uint64_t& next_key, std::vector<Finding>& findings);
  void report_level_shift(const Step& step, std::uint64_t& next_key,
                          std::vector<Finding>& findings);
  void report_moved(const Step& step, std::string_view signal, double value,
                    const SignalScore& score, std::uint64_t& next_key,
                    std::vector<Finding>& findings);

  const kernels::SpikeRuleOptions options_;
  kernels::SpikeRuleState state_;
  kernels::SpikeJudgement last_;
  CalibratedDetector calibrated_;
  IncidentTracker spikes_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_
