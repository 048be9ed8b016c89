// A loss that diverges slowly, where no single row stands out: medians of blocks of rows rise one
// after the other, each by more than the noise, away from the best that was reached; or they stay
// far above that for long, as when each step undoes what the one before it learnt.
//
// Losses that are not positive are not judged. Not thread-safe; owned by a RuleSet.
#ifndef GRADWARDEN_DAEMON_DETECT_DIVERGENCE_RULE_H_
#define GRADWARDEN_DAEMON_DETECT_DIVERGENCE_RULE_H_

#include <array>

#include "daemon/detect/options.h"
#include "daemon/detect/rule.h"

namespace gradwarden::detect {

class DivergenceRule final : public TrackedRule {
 public:
  explicit DivergenceRule(const DivergenceOptions& options);

  std::string_view name() const override { return "divergence"; }
  void observe(const Scene& scene) override;
  void save(StateWriter& out) const override;
  bool restore(StateReader& in) override;

 private:
  static constexpr std::size_t kBlock = 16;  // rows
  static constexpr std::size_t kRising = 4;  // medians

  // The median of one block of log losses, and when it began.
  struct Block {
    double median = 0;
    std::uint64_t start_step = 0;
    std::uint64_t start_time_ns = 0;
  };
  void close_block(const Scene& scene);
  bool rises(double noise) const;
  bool stays_high(double noise);

  const DivergenceOptions options_;
  std::array<double, kBlock> rows_{};
  std::uint32_t row_count_ = 0;
  Block current_;
  std::array<Block, kRising> last_{};  // the newest at the back
  std::uint64_t blocks_ = 0;
  std::uint32_t high_blocks_ = 0;  // in a row, far above the best of kRising blocks together
  double best_together_ = 0;
  double best_ = 0;
  double noise_ = 0;  // of a row within its block, averaged over blocks
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_DIVERGENCE_RULE_H_
