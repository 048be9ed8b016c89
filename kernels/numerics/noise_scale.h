// The gradient noise scale: how far the gradients of the ranks scatter about their mean.
//
// McCandlish et al. 2018 (arXiv 1812.06162), appendix A.1: from the mean squared norm of the
// gradients of batches of size b and that of their mean over R ranks, unbiased estimates of the
// true squared norm |G|^2 and of the variance tr(S) of a batch's gradient; their quotient, in
// batches of size b, is the simple noise scale. Both estimates are noisy, so each is averaged over
// steps before they are divided.
#ifndef GRADWARDEN_KERNELS_NUMERICS_NOISE_SCALE_H_
#define GRADWARDEN_KERNELS_NUMERICS_NOISE_SCALE_H_

#include <cmath>
#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

struct NoiseScale {
  static constexpr double kDecay = 0.95;
  static constexpr std::uint32_t kLeastSteps = 10;  // before the quotient means anything

  double square = 0;    // weighted sum of estimates of |G|^2
  double variance = 0;  // likewise of tr(S); the weights cancel in the quotient
  std::uint32_t steps = 0;

  // `local_squares` is the sum over `ranks` (2 or more) of the squared norms of their gradients,
  // `mean_square` the squared norm of the mean gradient. Values that are not finite are left out.
  GRADWARDEN_HD void observe(double local_squares, double mean_square, std::uint32_t ranks) {
    const double r = ranks;
    const double mean_local = local_squares / r;
    const double g = (r * mean_square - mean_local) / (r - 1);
    const double s = (mean_local - mean_square) / (1 - 1 / r);
    if (!std::isfinite(g) || !std::isfinite(s)) return;
    square = kDecay * square + (1 - kDecay) * g;
    variance = kDecay * variance + (1 - kDecay) * s;
    if (steps < kLeastSteps) ++steps;
  }

  // NaN while there are too few steps, or where noise drowns the estimate of |G|^2.
  GRADWARDEN_HD double value() const {
    if (steps < kLeastSteps || !(square > 0)) return NAN;
    return variance > 0 ? variance / square : 0.0;
  }
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_NOISE_SCALE_H_
