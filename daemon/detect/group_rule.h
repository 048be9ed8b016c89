// One group whose norm leaves what is usual for it while the others stay: an embedding, an output
// head, a norm layer before the rest follows. Where the whole gradient spikes, the spike names the
// group instead.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_GROUP_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_GROUP_RULE_H_

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class GroupRule final : public TrackedRule {
 public:
  GroupRule(const GroupOptions& options, std::uint32_t quiet_steps);

  std::string_view name() const override { return "group_outlier"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override { tracker_.save(out); }
  bool restore(StateReader& in) override { return tracker_.restore(in); }

 private:
  const GroupOptions options_;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_GROUP_RULE_H_
