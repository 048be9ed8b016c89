// What one pass over a gradient yields, and how two such results join.
#ifndef GRADWARDEN_KERNELS_NUMERICS_STATISTICS_H_
#define GRADWARDEN_KERNELS_NUMERICS_STATISTICS_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

enum class DType : std::uint8_t { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

GRADWARDEN_HD constexpr std::uint64_t dtype_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

inline constexpr std::uint64_t kNoIndex = ~std::uint64_t{0};

// Statistics of one tensor, shard, group or model. Non-finite elements are counted and enter
// neither power_sum nor max_abs, so that the magnitude of the finite rest stays known.
struct Statistics {
  double power_sum =
      0;  // sum of |g|^p over finite elements; for p = infinity unused (0), max_abs is the norm
  double max_abs = 0;  // largest finite |g|
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;               // exact zeros, either sign
  std::uint64_t first_non_finite = kNoIndex;  // flat index of the first NaN or Inf

  GRADWARDEN_HD bool non_finite() const { return nan_count + inf_count != 0; }
};

// Adds `part`, whose element 0 is element `offset` of the whole, to `whole`. Floating-point sums
// depend on the order: callers fold in a fixed one (tensor by tensor, rank by rank), which is what
// makes all ranks agree bit for bit.
GRADWARDEN_HD inline void fold(Statistics& whole, const Statistics& part,
                               std::uint64_t offset = 0) {
  whole.power_sum += part.power_sum;
  whole.max_abs = part.max_abs > whole.max_abs ? part.max_abs : whole.max_abs;
  whole.nan_count += part.nan_count;
  whole.inf_count += part.inf_count;
  whole.zero_count += part.zero_count;
  if (part.first_non_finite != kNoIndex) {
    const std::uint64_t index = offset + part.first_non_finite;
    if (index < whole.first_non_finite) whole.first_non_finite = index;
  }
}

// The p-norm of the finite elements. p is > 0 or infinity. A power sum beyond float64 saturates to
// infinity, never NaN.
GRADWARDEN_HD inline double norm_of(double power_sum, double max_abs, double p) {
  if (std::isinf(p)) return max_abs;
  if (p == 2.0) return std::sqrt(power_sum);
  if (p == 1.0) return power_sum;
  return std::pow(power_sum, 1.0 / p);
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_STATISTICS_H_
