// How the norms of groups compare over a long time. Two findings:
//   - a group whose share of the gradient falls to nothing while the others go on: its units died,
//   or
//     it was cut off (a gradient_collapse that names the group);
//   - norms that grow or shrink from group to group by orders of magnitude: advice.
// Groups are taken to be in order of depth, as trainers list them.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_DEPTH_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_DEPTH_RULE_H_

#include <vector>

#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class DepthRule final : public Rule {
 public:
  std::string_view name() const override { return "depth"; }
  void observe(const Scene& scene) override;
  void finish(std::vector<Finding>&) override {}
  void append_open(std::vector<Incident>&) const override {}
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  struct Share {
    float usual = 0;    // log of the group's part of the norm, averaged
    float highest = 0;  // that it ever was
    bool told = false;  // that it died
  };
  void judge_shares(const Scene& scene);
  void judge_depth(const Scene& scene);

  std::vector<Share> shares_;
  std::uint64_t rows_ = 0;
  std::uint32_t steep_looks_ = 0;
  bool advised_ = false;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_DEPTH_RULE_H_
