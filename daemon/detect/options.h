// What can be set of the detection rules, per run. The defaults need no tuning.
//
// Plain values.
#ifndef GRADWARDEN_DAEMON_DETECT_OPTIONS_H_
#define GRADWARDEN_DAEMON_DETECT_OPTIONS_H_

#include <cstdint>
#include <set>
#include <string>

#include "kernels/numerics/spike_rule.h"

namespace gradwarden::detect {

struct VanishingOptions {
  double below = 1e-5;       // a grad norm
  std::uint32_t after = 50;  // rows in a row
};

struct CollapseOptions {
  double factor = 100;       // below the usual grad norm
  std::uint32_t after = 10;  // rows in a row
};

struct ClipRateOptions {
  double high = 0.5;                // share of the last rows
  std::uint32_t judged_from = 200;  // rows
  std::uint32_t never_after = 10000;
};

struct DivergenceOptions {
  double rise = 1.1;  // of the loss over its best, at least
  double sigmas = 4;  // of the noise of a median of 16 rows, at least
};

struct LossScaleOptions {
  std::uint32_t burst = 8;          // overflows
  std::uint64_t burst_steps = 500;  // within so many steps
  double collapse_factor = 128;     // fallen by so much within
  std::uint32_t collapse_rows = 200;
};

struct GroupOptions {
  double sigmas = 8;  // of the group's own log norm
  double factor = 4;  // and above its usual norm by so much more than the other groups
  double alarm = 16;  // such a factor is a warning, less is information
};

struct StallOptions {
  double periods = 3;         // usual intervals between reports, at least
  double least_seconds = 10;  // shorter silence is nobody's concern
  double rank_seconds = 30;   // without a heartbeat: a rank is silent
};

struct DetectorOptions {
  kernels::SpikeRuleOptions spike;
  std::uint32_t quiet_steps = 20;  // accepted steps in a row that end an incident; 1 or more
  VanishingOptions vanishing;
  CollapseOptions collapse;
  ClipRateOptions clip_rate;
  DivergenceOptions divergence;
  LossScaleOptions loss_scale;
  GroupOptions group;
  StallOptions stall;
  std::set<std::string, std::less<>> off;  // names of rules (rule.h) that are not to judge
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_OPTIONS_H_
