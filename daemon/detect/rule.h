// One detection rule: a small pure class that is fed with steps and says what it finds. Rules that
// look at a single quantity, and need nothing of one another but the findings of the same step, are
// of this kind; RuleSet drives them.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_RULE_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/group_norms.h"
#include "daemon/detect/incident.h"

namespace gradwarden::detect {

// A step as a rule sees it, and where it puts what it finds.
struct Scene {
  const Step& step;
  const GroupVerdict& group;
  bool accepted = true;  // neither a spike nor non-finite, by the rules before
  std::uint64_t& next_key;
  std::vector<Finding>& findings;
  std::size_t first_finding = 0;  // of this step
};

class Rule {
 public:
  virtual ~Rule() = default;

  // Stands in saved state and configuration; never reused for another rule.
  virtual std::string_view name() const = 0;
  virtual void observe(const Scene& scene) = 0;
  virtual void finish(std::vector<Finding>& findings) = 0;
  virtual void append_open(std::vector<Incident>& out) const = 0;
  virtual void save(StateWriter& out) const = 0;
  virtual bool restore(StateReader& in) = 0;
};

// A rule that has at most one incident open.
class TrackedRule : public Rule {
 public:
  TrackedRule(std::string_view kind, std::string_view signal, std::uint32_t quiet)
      : tracker_(kind, signal, quiet) {}

  void finish(std::vector<Finding>& findings) override { tracker_.end(findings); }
  void append_open(std::vector<Incident>& out) const override {
    if (tracker_.open() != nullptr) out.push_back(*tracker_.open());
  }

 protected:
  IncidentTracker tracker_;
};

// Appends an incident that begins and ends at once.
void append_instant(Incident incident, std::uint64_t& next_key, std::vector<Finding>& findings);
// The same, of one step.
Incident instant_of(const Step& step, std::string_view kind, std::string_view signal);

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_RULE_H_
