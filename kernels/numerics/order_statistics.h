// The k-th smallest of a small array: medians and percentiles of the rolling window.
#ifndef GRADWARDEN_KERNELS_NUMERICS_ORDER_STATISTICS_H_
#define GRADWARDEN_KERNELS_NUMERICS_ORDER_STATISTICS_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

// The value that stands at `rank` (from 0, below `count`) when `values` is sorted. Reorders them;
// no NaN among them. Linear time on average: Wirth, Algorithms + Data Structures = Programs,
// program 2.13. The same input gives the same steps on host and device.
GRADWARDEN_HD inline double select_rank(double* values, std::uint32_t count, std::uint32_t rank) {
  const auto wanted = static_cast<std::int32_t>(rank);
  std::int32_t low = 0;
  auto high = static_cast<std::int32_t>(count) - 1;
  while (low < high) {
    const double pivot = values[wanted];
    std::int32_t i = low;
    std::int32_t j = high;
    while (i <= j) {
      while (values[i] < pivot) ++i;
      while (pivot < values[j]) --j;
      if (i > j) break;
      const double kept = values[i];
      values[i++] = values[j];
      values[j--] = kept;
    }
    if (j < wanted) low = i;
    if (wanted < i) high = j;
  }
  return values[wanted];
}

// The lower one of the two middle values where `count` (1 or more) is even.
GRADWARDEN_HD inline double median_of(double* values, std::uint32_t count) {
  return select_rank(values, count, (count - 1) / 2);
}

// The smallest value that at least `percent` percent of the values do not exceed; 0 < percent <=
// 100.
GRADWARDEN_HD inline double percentile_of(double* values, std::uint32_t count, double percent) {
  const double share = percent * count / 100.0;
  auto below = static_cast<std::uint32_t>(share);
  if (below > 0 && share <= below) --below;  // exactly `below` values suffice
  return select_rank(values, count, below < count ? below : count - 1);
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_ORDER_STATISTICS_H_
