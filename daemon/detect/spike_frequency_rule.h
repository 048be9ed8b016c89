// Spikes that come ever more often. Their steps are compared with a steady rate by Laplace's trend
// test: of n spikes between the first step and now, the mean of their places is half-way, give or
// take 1 / sqrt(12 n). Advice, given again only when there are twice as many.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_SPIKE_FREQUENCY_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_SPIKE_FREQUENCY_RULE_H_

#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class SpikeFrequencyRule final : public Rule {
 public:
  std::string_view name() const override { return "spike_frequency"; }
  void observe(const Scene& scene) override;
  void finish(std::vector<Finding>&) override {}
  void append_open(std::vector<Incident>&) const override {}
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  std::uint64_t rows_ = 0;
  std::uint64_t spikes_ = 0;
  double places_ = 0;  // sum of the rows at which they began
  std::uint64_t advised_at_ = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_SPIKE_FREQUENCY_RULE_H_
