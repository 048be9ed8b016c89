// Gradients that explode in the first rows, orders of magnitude above what becomes usual: nothing
// bounds what passes through the model as it was initialised. Advice, given once.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_INITIALISATION_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_INITIALISATION_RULE_H_

#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class InitialisationRule final : public Rule {
 public:
  std::string_view name() const override { return "initialisation"; }
  void observe(const Scene& scene) override;
  void finish(std::vector<Finding>&) override {}
  void append_open(std::vector<Incident>&) const override {}
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  std::uint32_t rows_ = 0;
  double first_ = 0;  // average of the log norms of the first rows
  double usual_ = 0;  // of the last ones
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_INITIALISATION_RULE_H_
