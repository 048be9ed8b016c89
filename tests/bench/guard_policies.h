// The policies that policy_bench compares. To add one, append it to a list below.
#ifndef GRADWARDEN_TESTS_BENCH_GUARD_POLICIES_H_
#define GRADWARDEN_TESTS_BENCH_GUARD_POLICIES_H_

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gradwarden/guard.h"

namespace gradwarden::bench {

// What a policy's thresholds are made from.
struct Scene {
  bool clips = false;  // whether thresholds are to lie below the norm
  double norm = 0;     // of the policy's type
  double max_abs = 0;
  std::vector<std::string> groups;
  std::vector<double> group_norms;
  double beside(double value) const { return clips ? value / 2 : value * 4; }
};

struct Policy {
  const char* name;
  double norm_type = 2;
  double loss_scale = 0;
  bool observe_local = false;
  bool parameters = false;          // as large as the gradients, bound beside them
  bool level_is_threshold = false;  // clips by what the window has seen
  std::function<void(const Scene&, GuardOptions&)> set;
};

inline void by_global_norm(const Scene& scene, GuardOptions& o) {
  o.max_norm = scene.beside(scene.norm);
}

inline std::vector<Policy> clipping_policies() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const auto adaptive = [](ClipRule rule, double value) {
    return [rule, value](const Scene&, GuardOptions& o) {
      o.clip_rule = rule;
      o.clip_value = value;
    };
  };
  const auto groups = [](const Scene& scene, GuardOptions& o) {
    for (std::size_t i = 0; i < scene.groups.size(); ++i) {
      o.group_rules.push_back(
          {.pattern = scene.groups[i], .max_norm = scene.beside(scene.group_norms[i])});
    }
  };
  const auto values = [](const Scene& scene, GuardOptions& o) {
    o.value_limit = scene.beside(scene.max_abs);
  };
  // The parameters are a copy of the gradients: their norms are equal.
  const auto ratios = [](const Scene& scene, GuardOptions& o) {
    o.adaptive_clip = scene.clips ? 0.5 : 4;
  };
  return {{.name = "global norm, fixed (again)", .set = by_global_norm},
          {.name = "a threshold for each group", .set = groups},
          {.name = "value limit", .set = values},
          {.name = "adaptive clipping, per tensor", .parameters = true, .set = ratios},
          {.name = "threshold by rolling mean",
           .level_is_threshold = true,
           .set = adaptive(ClipRule::kRollingMean, 1.2)},
          {.name = "threshold by z-score",
           .level_is_threshold = true,
           .set = adaptive(ClipRule::kZScore, 5)},
          {.name = "threshold by percentile",
           .level_is_threshold = true,
           .set = adaptive(ClipRule::kPercentile, 100)},
          {.name = "1-norm", .norm_type = 1, .set = by_global_norm},
          {.name = "3-norm", .norm_type = 3, .set = by_global_norm},
          {.name = "infinity norm", .norm_type = kInfinity, .set = by_global_norm},
          {.name = "loss scale divided out", .loss_scale = 1024, .set = by_global_norm}};
}

inline std::vector<Policy> skip_and_observe_policies() {
  const auto with = [](auto more) {
    return [more](const Scene& scene, GuardOptions& o) {
      by_global_norm(scene, o);
      more(scene, o);
    };
  };
  const auto limit = [](const Scene& s, GuardOptions& o) { o.skip_above = 10 * s.norm; };
  const auto mean = [](const Scene&, GuardOptions& o) { o.skip_above_rolling_mean = 3; };
  const auto z = [](const Scene&, GuardOptions& o) { o.skip_above_z = 10; };
  const auto robust = [](const Scene&, GuardOptions& o) { o.skip_above_robust_z = 10; };
  const auto all = [=](const Scene& scene, GuardOptions& o) {
    limit(scene, o);
    mean(scene, o);
    z(scene, o);
    robust(scene, o);
  };
  const auto shadow = [=](const Scene& scene, GuardOptions& o) {
    all(scene, o);
    o.shadow = true;
  };
  const auto others = [](const Scene&, GuardOptions& o) { o.observe_others_every = 1; };
  const auto no_recorder = [](const Scene&, GuardOptions& o) { o.flight_recorder = false; };
  return {{.name = "skip above a limit", .set = with(limit)},
          {.name = "skip by rolling mean", .set = with(mean)},
          {.name = "skip by z-score", .set = with(z)},
          {.name = "skip by robust z-score", .set = with(robust)},
          {.name = "all skip rules", .set = with(all)},
          {.name = "all skip rules, only observed", .set = with(shadow)},
          {.name = "`observe_local()` in each step", .observe_local = true, .set = by_global_norm},
          {.name = "parameters as a signal in each step", .parameters = true, .set = with(others)},
          {.name = "without the flight recorder", .set = with(no_recorder)}};
}

inline std::vector<Policy> policies() {
  std::vector<Policy> all = clipping_policies();
  for (Policy& policy : skip_and_observe_policies()) all.push_back(std::move(policy));
  return all;
}

}  // namespace gradwarden::bench

#endif  // GRADWARDEN_TESTS_BENCH_GUARD_POLICIES_H_
