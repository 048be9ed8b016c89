// The inner loop of the statistics: rows of finite elements, by SIMD with run-time dispatch.
//
// The order of additions is part of the interface, because it is what makes results equal bits on
// every machine: a row is kLanes elements, element i of a row always goes to the same lane, lanes
// take rows in order. Hardware vectors are a way to run several lanes at once and never change
// which lane an element goes to. Products and sums are rounded separately (not fused), which for
// elements of at most 32 bits is the same, since their squares are exact in float64.
#ifndef GRADWARDEN_KERNELS_CPU_STATISTICS_SIMD_H_
#define GRADWARDEN_KERNELS_CPU_STATISTICS_SIMD_H_

#include <cstddef>
#include <cstdint>

#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::simd {

inline constexpr std::size_t kLanes = 32;
// Counters in the loop are as narrow as the elements: 16 bits hold the rows of one call.
inline constexpr std::size_t kMaxRows = 512;

enum class Power : std::uint8_t {
  kNone,    // no sum: the maximum norm, or a power that is summed elsewhere
  kAbs,     // |g|
  kSquare,  // g^2
  kCube,    // |g|^3
  kFourth,  // g^4
  kRoot,    // |g|^(1/2)
};

struct RowTotals {
  std::uint64_t max_abs_bits = 0;  // largest element without its sign, as an integer: at or above
                                   // the bits of infinity when any element is not finite
  std::uint64_t nonzero = 0;
};

// Adds `rows` <= kMaxRows rows starting at `data` (any alignment) to `lanes`[kLanes] and returns
// their totals. When max_abs_bits shows a non-finite element, `lanes` is spoilt and the caller
// takes back its copy.
RowTotals add_rows(const void* data, std::size_t rows, DType dtype, Power power,
                   double* lanes) noexcept;

}  // namespace gradwarden::kernels::simd

#endif  // GRADWARDEN_KERNELS_CPU_STATISTICS_SIMD_H_
