// The norm of the optimizer's updates, against what is normal for this run. Where moments have gone
// wrong it rises before the loss does. Divided by the learning rate where that is known, so that a
// schedule is no news.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_UPDATE_NORM_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_UPDATE_NORM_RULE_H_

#include "daemon/detect/calibrated_signal.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class UpdateNormRule final : public TrackedRule {
 public:
  explicit UpdateNormRule(std::uint32_t quiet_steps);

  std::string_view name() const override { return "update_norm"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  CalibratedSignal signal_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_UPDATE_NORM_RULE_H_
