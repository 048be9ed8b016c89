// Gradients that collapse: from one row to the next the grad norm is a small part of what it was,
// and stays there. Activations died, a branch was cut off, or the loss became constant. A slow
// decay is none.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_COLLAPSE_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_COLLAPSE_RULE_H_

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class CollapseRule final : public TrackedRule {
 public:
  explicit CollapseRule(const CollapseOptions& options);

  std::string_view name() const override { return "gradient_collapse"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  void flag(const Scene& scene);

  const CollapseOptions options_;
  std::uint64_t rows_ = 0;  // that the usual norm was learnt from
  double usual_ = 0;        // average of log norms
  std::uint32_t low_rows_ = 0;
  std::uint64_t start_step_ = 0;
  std::uint64_t start_time_ns_ = 0;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_COLLAPSE_RULE_H_
