// The dynamic loss scale of fp16: many overflows close together, and a scale that collapses. Its
// search for a first value, and the overflow that each attempt to raise it ends with, are healthy.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_LOSS_SCALE_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_LOSS_SCALE_RULE_H_

#include <deque>

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class LossScaleRule final : public Rule {
 public:
  explicit LossScaleRule(const LossScaleOptions& options);

  std::string_view name() const override { return "loss_scale"; }
  void observe(const Scene& scene) override;
  void finish(std::vector<Finding>& findings) override;
  void append_open(std::vector<Incident>& out) const override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  void judge_overflows(const Scene& scene);
  void judge_scale(const Scene& scene);

  const LossScaleOptions options_;
  IncidentTracker burst_;
  IncidentTracker collapse_;
  bool searching_ = true;
  std::uint32_t calm_rows_ = 0;
  std::deque<std::uint64_t> overflow_steps_;  // the last `burst` of them
  double high_ = 0;                           // the highest scale of the last rows
  std::uint32_t rows_since_high_ = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_LOSS_SCALE_RULE_H_
