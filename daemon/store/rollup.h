// Roll-ups: what is left of a stretch of steps when millions of them are to be drawn at once.
//
// A bucket of level L covers kBucketSteps[L] consecutive step numbers. Extremes survive every
// merge, so a spike of one step stays visible at every level. Plain data; not thread-safe.
#ifndef GRADWARDEN_DAEMON_STORE_ROLLUP_H_
#define GRADWARDEN_DAEMON_STORE_ROLLUP_H_

#include <cstdint>
#include <limits>

namespace gradwarden::store {

inline constexpr std::uint32_t kRollupLevels = 3;
inline constexpr std::uint64_t kBucketSteps[kRollupLevels] = {1U << 6, 1U << 12, 1U << 18};

struct Rollup {
  std::uint64_t first_step = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t last_step = 0;
  std::uint64_t reports = 0;
  std::uint64_t finite_norms = 0;
  double norm_min = std::numeric_limits<double>::infinity();  // of finite norms
  double norm_max = -std::numeric_limits<double>::infinity();
  double norm_sum = 0;
  double loss_min = std::numeric_limits<double>::infinity();  // of finite losses
  double loss_max = -std::numeric_limits<double>::infinity();
  std::uint64_t clipped = 0;
  std::uint64_t skipped = 0;
  std::uint64_t non_finite = 0;

  bool has_loss() const { return loss_min <= loss_max; }
};

// One report's contribution. A NaN loss means that there is none.
struct RollupSample {
  std::uint64_t step = 0;
  double grad_norm = 0;
  double loss = std::numeric_limits<double>::quiet_NaN();
  bool clipped = false;
  bool skipped = false;
  bool non_finite = false;
};

void add(Rollup& rollup, const RollupSample& sample);
void merge(Rollup& into, const Rollup& part);

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_ROLLUP_H_
