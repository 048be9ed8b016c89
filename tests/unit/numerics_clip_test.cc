#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "kernels/numerics/clip.h"

namespace gradwarden::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(ClipCoefficient, FollowsTorchClipGradNorm) {
  EXPECT_EQ(clip_coefficient(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_coefficient(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_coefficient(0.0, 1.0), 1.0);
  // Torch's epsilon makes a norm that just reaches the limit clip by a hair.
  EXPECT_EQ(clip_coefficient(1.0, 1.0), 1.0 / (1.0 + 1e-6));
  EXPECT_LT(clip_coefficient(1.0, 1.0), 1.0);
}

TEST(ClipCoefficient, ZeroOrNegativeLimitMeansDoNotClip) {
  EXPECT_EQ(clip_coefficient(1e9, 0.0), 1.0);
  EXPECT_EQ(clip_coefficient(1e9, -1.0), 1.0);
  EXPECT_EQ(clip_coefficient(1e9, std::nan("")), 1.0);
}

TEST(ClipCoefficient, KeepsItsPrecisionForHugeNorms) {
  EXPECT_DOUBLE_EQ(clip_coefficient(1e300, 1.0), 1e-300);
  EXPECT_EQ(clip_coefficient(1e300, kInf), 1.0);
}

TEST(SplitFactor, IsOneFloatInTheOrdinaryRange) {
  for (const double factor : {0.25, 0.3, 1.0 / 3, 1e-30, 1e30, 0x1p-119, -0.5}) {
    const Float32Factor split = split_factor(factor);
    EXPECT_EQ(split.first, static_cast<float>(factor)) << factor;
    EXPECT_EQ(split.second, 1.0F) << factor;
  }
}

TEST(SplitFactor, KeepsTheMantissaWhereOneFloatWouldLoseIt) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> mantissa(0.5, 1.0);
  for (int exponent = -274; exponent <= 254; ++exponent) {
    const double factor = std::ldexp(mantissa(random), exponent);
    const Float32Factor split = split_factor(factor);
    const double product = static_cast<double>(split.first) * static_cast<double>(split.second);
    EXPECT_LE(std::fabs(product - factor), factor * 0x1p-24) << "exponent " << exponent;
    EXPECT_TRUE(std::isnormal(split.first)) << "exponent " << exponent;
  }
}

TEST(SplitFactor, ScalesALargeFloatByATinyFactorToFullPrecision) {
  const double factor = 0x1.fffffcp-253;
  const Float32Factor split = split_factor(factor);
  const float scaled = 0x1p127F * split.first * split.second;
  ASSERT_TRUE(std::isnormal(scaled));
  EXPECT_EQ(scaled, 0x1.fffffcp-126F);
}

TEST(SplitFactor, NeverTurnsAZeroIntoNaN) {
  for (const double factor : {0.0, 5e-324, 1e-300, 1e80, 1e300, 0x1.fffffffffffffp+1023}) {
    const Float32Factor split = split_factor(factor);
    EXPECT_TRUE(std::isfinite(split.first)) << factor;
    EXPECT_TRUE(std::isfinite(split.second)) << factor;
    EXPECT_EQ(0.0F * split.first * split.second, 0.0F) << factor;
  }
}

}  // namespace
}  // namespace gradwarden::kernels
