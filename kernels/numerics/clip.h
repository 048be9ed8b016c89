// The clip coefficient and its form for low-precision arithmetic.
#ifndef GRADWARDEN_KERNELS_NUMERICS_CLIP_H_
#define GRADWARDEN_KERNELS_NUMERICS_CLIP_H_

#include <cmath>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

inline constexpr double kClipEpsilon = 1e-6;

// min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_ computes it. max_norm <= 0
// means "do not clip".
GRADWARDEN_HD inline double clip_coefficient(double norm, double max_norm) {
  if (!(max_norm > 0)) return 1.0;
  const double ratio = max_norm / (norm + kClipEpsilon);
  return ratio < 1.0 ? ratio : 1.0;
}

// A factor for elements of at most 32 bits: element * first * second, each product rounded to
// float. `second` is 1 unless the factor would leave the range of normal floats, where one float
// would lose bits or become 0. Both are finite for every finite factor (beyond 2^254 their product
// saturates), so that a zero stays zero.
struct Float32Factor {
  float first = 1;
  float second = 1;
};

GRADWARDEN_HD inline Float32Factor split_factor(double factor) {
  int exponent = 0;
  const double mantissa =
      std::frexp(factor, &exponent);  // factor = mantissa * 2^exponent, 0.5 <= |mantissa| < 1
  if (exponent > -120 && exponent < 120) return {static_cast<float>(factor), 1.0F};
  // `first` carries the mantissa and stays a normal float; `second` is a power of two.
  int half = exponent / 2;
  half = half < -125 ? -125 : half > 127 ? 127 : half;
  const int rest = exponent - half > 127 ? 127 : exponent - half;
  return {static_cast<float>(std::ldexp(mantissa, half)),
          static_cast<float>(std::ldexp(1.0, rest))};
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_CLIP_H_
