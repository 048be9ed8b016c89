// A restart: the first step of an attempt that is not the run's first. Says how many steps are done
// again.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_RESTART_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_RESTART_RULE_H_

#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class RestartRule final : public Rule {
 public:
  std::string_view name() const override { return "restart"; }
  void observe(const Scene& scene) override;
  void finish(std::vector<Finding>&) override {}
  void append_open(std::vector<Incident>&) const override {}
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  bool begun_ = false;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_RESTART_RULE_H_
