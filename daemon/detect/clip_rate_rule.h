// How often clipping acts: on most steps for long (the threshold is too low: it sets the size of
// every update), on 5 to 10 % of a long run (a hint that the learning rate is high), or never (it
// protects from nothing). All of it is advice.
//
// Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_CLIP_RATE_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_CLIP_RATE_RULE_H_

#include <bitset>

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class ClipRateRule final : public TrackedRule {
 public:
  explicit ClipRateRule(const ClipRateOptions& options);

  std::string_view name() const override { return "clip_rate"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  static constexpr std::uint32_t kWindow = 1000;

  void judge(const Scene& scene, double share);
  void advise(const Scene& scene, std::string_view kind, double share);

  const ClipRateOptions options_;
  std::bitset<kWindow> clipped_;
  std::uint32_t in_window_ = 0;
  std::uint64_t rows_ = 0;
  std::uint64_t clipped_rows_ = 0;  // of all
  bool advised_raised_ = false;
  bool advised_never_ = false;
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_CLIP_RATE_RULE_H_
