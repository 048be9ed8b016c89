#include <gtest/gtest.h>

#include <limits>

#include "kernels/numerics/statistics.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

TEST(Fold, AddsSumsAndCountsAndKeepsTheLargestMagnitude) {
  Statistics whole{4.0, 2.0, 1, 2, 3, 5};
  fold(whole, Statistics{9.0, 3.0, 10, 20, 30, kNoIndex}, 100);
  EXPECT_EQ(whole.power_sum, 13.0);
  EXPECT_EQ(whole.max_abs, 3.0);
  EXPECT_EQ(whole.nan_count, 11u);
  EXPECT_EQ(whole.inf_count, 22u);
  EXPECT_EQ(whole.zero_count, 33u);
  EXPECT_EQ(whole.first_non_finite, 5u);
}

TEST(Fold, OneElementOnAnyNumberOfReplicasCountsOnceAndIsNeverRoundedAway) {
  for (unsigned replicas = 1; replicas <= 4096; ++replicas) {
    double weighted = 0;
    for (unsigned rank = 0; rank < replicas; ++rank) weighted += 1.0 / replicas;
    ASSERT_EQ(count_up(weighted), 1u) << replicas;
    ASSERT_EQ(count_up(1.0 / replicas), 1u) << "on one replica of " << replicas;
  }
}

TEST(Fold, CountsTheFirstNonFiniteIndexFromTheStartOfTheWhole) {
  Statistics whole;
  Statistics part;
  part.nan_count = 1;
  part.first_non_finite = 7;
  fold(whole, part, 1000);
  EXPECT_EQ(whole.first_non_finite, 1007u);
  part.first_non_finite = 3;
  fold(whole, part, 500);
  EXPECT_EQ(whole.first_non_finite, 503u);
  fold(whole, part, 2000);
  EXPECT_EQ(whole.first_non_finite, 503u);
}

TEST(Fold, EmptyPartChangesNothing) {
  Statistics whole{4.0, 2.0, 0, 0, 3, kNoIndex};
  fold(whole, Statistics{}, 12);
  EXPECT_EQ(whole.power_sum, 4.0);
  EXPECT_EQ(whole.first_non_finite, kNoIndex);
  EXPECT_FALSE(whole.non_finite());
}

TEST(NormOf, UndoesThePowerOfEachNormType) {
  EXPECT_EQ(norm_of(25.0, 4.0, 2.0), 5.0);
  EXPECT_EQ(norm_of(7.0, 4.0, 1.0), 7.0);
  EXPECT_DOUBLE_EQ(norm_of(27.0, 4.0, 3.0), 3.0);
  EXPECT_DOUBLE_EQ(norm_of(3.0, 4.0, 0.5), 9.0);
  EXPECT_EQ(norm_of(0.0, 4.0, kInf), 4.0);
}

TEST(NormOf, SaturatesToInfinityAndNeverToNaN) {
  for (const double p : {0.5, 1.0, 2.0, 3.0}) EXPECT_EQ(norm_of(kInf, 1e300, p), kInf) << p;
}

TEST(DTypeBytes, IsTheSizeOfOneElement) {
  EXPECT_EQ(dtype_bytes(DType::kFloat64), 8u);
  EXPECT_EQ(dtype_bytes(DType::kFloat32), 4u);
  EXPECT_EQ(dtype_bytes(DType::kBFloat16), 2u);
  EXPECT_EQ(dtype_bytes(DType::kFloat16), 2u);
}

}  // namespace
}  // namespace gradwarden::kernels
