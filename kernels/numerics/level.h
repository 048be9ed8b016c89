// Consecutive outliers that may be a new level: the way out of every rule that keeps outliers out
// of its memory, and would otherwise flag a lasting shift for ever.
#ifndef GRADWARDEN_KERNELS_NUMERICS_LEVEL_H_
#define GRADWARDEN_KERNELS_NUMERICS_LEVEL_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

inline constexpr std::uint32_t kMaxLevelShiftAfter = 64;

// Plain data; zero at the start.
struct PendingLevel {
  std::uint32_t flagged = 0;  // outliers in a row; the last `length` of them are in `values`
  std::uint32_t reserved = 0;
  double values[kMaxLevelShiftAfter] = {};
};

// The i-th oldest of the last `length` outliers.
GRADWARDEN_HD inline double pending_value(const PendingLevel& pending, std::uint32_t length,
                                          std::uint32_t i) {
  // `flagged` counts up without wrapping the ring's index, so the oldest is at flagged % length.
  return pending.values[(pending.flagged + i) % length];
}

// True when none of the pending values would be an outlier, nor a collapse, measured against their
// own mean.
GRADWARDEN_HD inline bool is_level(const PendingLevel& pending, std::uint32_t length,
                                   double multiple) {
  double sum = 0;
  double low = pending.values[0];
  double high = pending.values[0];
  for (std::uint32_t i = 0; i < length; ++i) {
    const double value = pending.values[i];
    sum += value;
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  const double mean = sum / length;
  return high <= multiple * mean && low * multiple >= mean;
}

// Takes an outlier. True: the last `length` of them are the new level, to start again from.
GRADWARDEN_HD inline bool add_outlier(PendingLevel& pending, std::uint32_t length, double multiple,
                                      double value) {
  pending.values[pending.flagged % length] = value;
  ++pending.flagged;
  return pending.flagged >= length && is_level(pending, length, multiple);
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_LEVEL_H_
