// The default rule: a grad norm above a multiple of the mean of the last accepted steps is a spike.
// The arithmetic is kernels/numerics/spike_rule.h, the very code that the guard in the trainer
// runs.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_

#include <cstdint>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/incident.h"
#include "kernels/numerics/spike_rule.h"

namespace gradwarden::detect {

class SpikeDetector {
 public:
  SpikeDetector(const kernels::SpikeRuleOptions& options, std::uint32_t quiet_steps);

  // Returns true if the step was accepted, that is neither a spike nor non-finite.
  bool observe(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings) { spikes_.end(findings); }

  Judgement judgement() const { return {last_.mean, last_.threshold}; }
  const Incident* open() const { return spikes_.open(); }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  void flag_spike(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);
  void report_level_shift(const Step& step, std::uint64_t& next_key,
                          std::vector<Finding>& findings);

  const kernels::SpikeRuleOptions options_;
  kernels::SpikeRuleState state_;
  kernels::SpikeJudgement last_;
  IncidentTracker spikes_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_SPIKE_DETECTOR_H_
