#include "client/guard/options.h"

#include <cmath>
#include <sstream>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

void require(bool good, const std::string& message) {
  if (!good) throw Error("guard options: " + message);
}

std::string value_of(double value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

void check(const GuardOptions& o) {
  require(o.max_norm >= 0 && std::isfinite(o.max_norm),
          "max_norm is " + value_of(o.max_norm) + "; allowed: 0 (off) or a finite number above it");
  require(
      o.skip_above >= 0 && std::isfinite(o.skip_above),
      "skip_above is " + value_of(o.skip_above) + "; allowed: 0 (off) or a finite number above it");
  require(o.skip_above_rolling_mean == 0 ||
              (o.skip_above_rolling_mean > 1 && std::isfinite(o.skip_above_rolling_mean)),
          "skip_above_rolling_mean is " + value_of(o.skip_above_rolling_mean) +
              "; allowed: 0 (off) or a finite number above 1");
  require(o.window >= 1 && o.window <= kernels::kMaxWindow,
          "window is " + std::to_string(o.window) + "; allowed: 1 to " +
              std::to_string(kernels::kMaxWindow));
  require(o.warmup >= 1 && o.warmup <= o.window, "warmup is " + std::to_string(o.warmup) +
                                                     "; allowed: 1 to window (" +
                                                     std::to_string(o.window) + ")");
  require(o.level_shift_after >= 2 && o.level_shift_after <= kernels::kMaxLevelShiftAfter,
          "level_shift_after is " + std::to_string(o.level_shift_after) + "; allowed: 2 to " +
              std::to_string(kernels::kMaxLevelShiftAfter));
  require(o.max_consecutive_skips >= 1, "max_consecutive_skips is 0; allowed: 1 or more");
  require(o.fallback == Fallback::kApplyClipped || o.fallback == Fallback::kRequestStop,
          "fallback is " + std::to_string(static_cast<unsigned>(o.fallback)) +
              "; allowed: kApplyClipped, kRequestStop");
}

kernels::GuardPolicy policy_of(const GuardOptions& o) {
  kernels::GuardPolicy policy;
  policy.max_norm = o.max_norm;
  policy.skip_above = o.skip_above;
  policy.skip_non_finite = o.skip_non_finite;
  policy.skip_above_rolling_mean = o.skip_above_rolling_mean > 0;
  if (policy.skip_above_rolling_mean) policy.spike.multiple = o.skip_above_rolling_mean;
  policy.spike.window = o.window;
  policy.spike.warmup = o.warmup;
  policy.spike.level_shift_after = o.level_shift_after;
  policy.max_consecutive_skips = o.max_consecutive_skips;
  policy.fallback = static_cast<kernels::Fallback>(o.fallback);
  return policy;
}

// What must be equal on all ranks, as a person reads it.
std::string settings_text(const GuardOptions& o) {
  std::ostringstream out;
  out.precision(17);
  out << "{max_norm " << o.max_norm << ", skip_non_finite " << o.skip_non_finite << ", skip_above "
      << o.skip_above << ", skip_above_rolling_mean " << o.skip_above_rolling_mean << ", window "
      << o.window << ", warmup " << o.warmup << ", level_shift_after " << o.level_shift_after
      << ", max_consecutive_skips " << o.max_consecutive_skips << ", fallback "
      << static_cast<unsigned>(o.fallback) << ", shadow " << o.shadow << "}";
  return out.str();
}

}  // namespace gradwarden::guard
