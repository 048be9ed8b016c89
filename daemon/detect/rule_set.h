// All rules that judge single quantities, in a fixed order, without those that are switched off.
// Saves each rule's state under its name, so that a daemon that knows more or fewer rules goes on
// with those that it knows.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_RULE_SET_H_
#define GRADWARDEN_DAEMON_DETECT_RULE_SET_H_

#include <memory>
#include <string_view>
#include <vector>

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class RuleSet {
 public:
  explicit RuleSet(const DetectorOptions& options);

  void observe(const Scene& scene);
  void finish(std::vector<Finding>& findings);
  void append_open(std::vector<Incident>& out) const;

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  std::vector<std::unique_ptr<Rule>> rules_;
};

// The names that DetectorOptions::off may hold.
std::vector<std::string_view> rule_names();

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_RULE_SET_H_
