// Gradients that vanish: the grad norm stays below a small number, and does not grow out of it as
// it does in the first steps of some initialisations. While the loss falls all the same it is
// information.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_VANISHING_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_VANISHING_RULE_H_

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class VanishingRule final : public TrackedRule {
 public:
  explicit VanishingRule(const VanishingOptions& options);

  std::string_view name() const override { return "vanishing"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  void begin_stretch(const Step& step);

  const VanishingOptions options_;
  // The stretch of small norms that goes on.
  std::uint32_t rows_ = 0;
  std::uint64_t start_step_ = 0;
  std::uint64_t start_time_ns_ = 0;
  double first_norm_ = 0;
  double first_loss_ = 0;  // 0: none
  double loss_ = 0;        // averaged
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_VANISHING_RULE_H_
