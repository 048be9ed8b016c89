// Adaptive gradient clipping: each tensor's gradient against its parameter, over any sharding.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/shards.h"

namespace gradwarden {
namespace {

using test::error_of;
using test::whole;
using testing::HasSubstr;

TensorShard part(const char* name, std::vector<float>& values, std::uint64_t total,
                 std::uint64_t offset) {
  TensorShard shard = whole(name, "", values);
  shard.total_count = total;
  shard.offset = offset;
  return shard;
}

TEST(AdaptiveClip, KeepsEachTensorWithinItsRatioAndLeavesTheOthersAlone) {
  SingleRank ranks;
  std::vector<float> large = {30, 40};  // norm 50, of a parameter of norm 10: above 0.5 x 10
  std::vector<float> small = {3, 4};    // norm 5, of a parameter of norm 100
  std::vector<float> large_parameter = {6, 8};
  std::vector<float> small_parameter = {60, 80};
  Guard guard({.adaptive_clip = 0.5}, ranks);
  const std::vector<TensorShard> gradients = {whole("large", "layer", large),
                                              whole("small", "layer", small)};
  const std::vector<TensorShard> parameters = {whole("small", "layer", small_parameter),
                                               whole("large", "layer", large_parameter)};
  guard.bind({.gradients = gradients, .parameters = parameters});
  const StepOutcome outcome = guard.step({.step = 1});
  EXPECT_EQ(outcome.decision, Decision::kClip);
  EXPECT_EQ(outcome.reason, Reason::kAdaptiveClip);
  EXPECT_EQ(outcome.clipped_tensors, 1U);
  EXPECT_EQ(outcome.clip_coefficient, 1.0);
  EXPECT_FLOAT_EQ(large[0], 3);
  EXPECT_FLOAT_EQ(large[1], 4);
  EXPECT_EQ(small, (std::vector<float>{3, 4}));
  EXPECT_EQ(large_parameter, (std::vector<float>{6, 8}));
}

TEST(AdaptiveClip, AParameterNearZeroCountsAsTheLeastNormSoThatItCanGrow) {
  SingleRank ranks;
  std::vector<float> g = {0.3F, 0.4F};
  std::vector<float> w = {0, 0};
  Guard guard({.adaptive_clip = 0.1, .adaptive_clip_least_norm = 0.01}, ranks);
  guard.bind(
      {.gradients = std::vector{whole("w", "", g)}, .parameters = std::vector{whole("w", "", w)}});
  guard.step({.step = 1});
  EXPECT_NEAR(std::hypot(g[0], g[1]), 0.1 * 0.01, 1e-9);
}

TEST(AdaptiveClip, ARuleOfAGroupReplacesTheRatioAndCanTurnItOff) {
  SingleRank ranks;
  std::vector<float> body = {10};
  std::vector<float> head = {10};
  std::vector<float> norm = {10};
  std::vector<float> one = {1};
  GuardOptions options{.adaptive_clip = 0.5};
  options.group_rules = {{.pattern = "head", .adaptive_clip = 0.0},
                         {.pattern = "norm*", .adaptive_clip = 2.0}};
  Guard guard(options, ranks);
  guard.bind({.gradients = std::vector{whole("a", "body", body), whole("b", "head", head),
                                       whole("c", "norm1", norm)},
              .parameters = std::vector{whole("a", "body", one), whole("c", "norm1", one)}});
  EXPECT_EQ(guard.step({.step = 1}).clipped_tensors, 2U);
  EXPECT_FLOAT_EQ(body[0], 0.5F);
  EXPECT_FLOAT_EQ(head[0], 10);
  EXPECT_FLOAT_EQ(norm[0], 2);
}

TEST(AdaptiveClip, OfAllCoefficientsTheSmallestAppliesToEachTensor) {
  SingleRank ranks;
  std::vector<float> a = {300};
  std::vector<float> b = {400};
  std::vector<float> small = {1};
  std::vector<float> large = {1e6F};
  Guard guard({.max_norm = 50, .adaptive_clip = 1}, ranks);  // whole: 0.1
  guard.bind({.gradients = std::vector{whole("a", "", a), whole("b", "", b)},
              .parameters = std::vector{whole("a", "", small), whole("b", "", large)}});
  const StepOutcome outcome = guard.step({.step = 1});
  EXPECT_EQ(outcome.reason, Reason::kMaxNorm);
  EXPECT_EQ(outcome.clipped_tensors, 1U);
  EXPECT_FLOAT_EQ(a[0], 1);
  EXPECT_NEAR(b[0], 40, 1e-4);
}

TEST(AdaptiveClip, DividesTheLossScaleOutBeforeItCompares) {
  SingleRank ranks;
  std::vector<float> g = {2048};
  std::vector<float> w = {1};
  Guard guard({.adaptive_clip = 1.5}, ranks);
  guard.bind(
      {.gradients = std::vector{whole("w", "", g)}, .parameters = std::vector{whole("w", "", w)}});
  EXPECT_EQ(guard.step({.step = 1, .loss_scale = 1024}).clipped_tensors, 1U);
  EXPECT_FLOAT_EQ(g[0], 1.5);
}

TEST(AdaptiveClip, EqualsTheUnshardedFormulaWhenGradientsAndParametersAreCutDifferently) {
  for (const double p : {2.0, 1.0, std::numeric_limits<double>::infinity()}) {
    std::mt19937_64 random(7);
    std::normal_distribution<float> normal;
    std::vector<float> g(24), w(24);
    for (float& v : g) v = normal(random) * 10;
    for (float& v : w) v = normal(random);
    const auto norm = [p](const std::vector<float>& values) {
      double sum = 0;
      for (const float v : values) {
        sum = std::isinf(p) ? std::max<double>(sum, std::abs(v)) : sum + std::pow(std::abs(v), p);
      }
      return std::isinf(p) ? sum : std::pow(sum, 1 / p);
    };
    const double expected = 0.3 * norm(w) / norm(g);
    test::on_ranks(3, [&](Collective& ranks) {
      const auto r = static_cast<std::size_t>(ranks.rank());
      // Gradients: ranks 0 and 1 hold the first half both, rank 2 the second. Parameters: thirds.
      const std::size_t at = r == 2 ? 12 : 0;
      std::vector<float> mine(g.begin() + static_cast<long>(at),
                              g.begin() + static_cast<long>(at) + 12);
      std::vector<float> parameter(w.begin() + static_cast<long>(r * 8),
                                   w.begin() + static_cast<long>(r * 8 + 8));
      const std::vector<float> before = mine;
      Guard guard({.norm_type = p, .adaptive_clip = 0.3}, ranks);
      guard.bind({.gradients = std::vector{part("w", mine, 24, at)},
                  .parameters = std::vector{part("w", parameter, 24, r * 8)}});
      EXPECT_EQ(guard.step({.step = 1}).clipped_tensors, 1U);
      for (std::size_t i = 0; i < mine.size(); ++i) {
        EXPECT_NEAR(mine[i], before[i] * expected, 1e-6 * std::abs(before[i])) << p;
      }
    });
  }
}

TEST(AdaptiveClip, LeavesGradientsAloneInShadowModeAndWhenTheStepIsSkipped) {
  SingleRank ranks;
  std::vector<float> w = {1, 1};
  for (const bool shadow : {true, false}) {
    std::vector<float> g = {100, shadow ? 100 : std::nanf("")};
    Guard guard({.adaptive_clip = 0.1, .shadow = shadow}, ranks);
    guard.bind({.gradients = std::vector{whole("w", "", g)},
                .parameters = std::vector{whole("w", "", w)}});
    const StepOutcome outcome = guard.step({.step = 1});
    EXPECT_EQ(outcome.decision, shadow ? Decision::kClip : Decision::kSkip);
    EXPECT_EQ(g[0], 100);
  }
}

TEST(AdaptiveClip, WithoutTheParameterIsAnErrorThatNamesTheTensorOnEveryRank) {
  test::on_ranks(2, [](Collective& ranks) {
    std::vector<float> g = {1};
    Guard guard({.adaptive_clip = 0.1}, ranks);
    const std::string message =
        error_of([&] { guard.bind({.gradients = std::vector{whole("w", "", g)}}); });
    EXPECT_THAT(message, HasSubstr("needs the parameter of tensor \"w\""));
    EXPECT_THAT(message, HasSubstr("Bindings::parameters"));
  });
}

TEST(AdaptiveClip, OptionsOutOfRangeAreErrors) {
  SingleRank ranks;
  EXPECT_THAT(error_of([&] { Guard({.adaptive_clip = -1}, ranks); }), HasSubstr("adaptive_clip"));
  EXPECT_THAT(error_of([&] { Guard({.adaptive_clip = std::nan("")}, ranks); }),
              HasSubstr("adaptive_clip"));
  EXPECT_THAT(error_of([&] { Guard({.adaptive_clip_least_norm = 0}, ranks); }),
              HasSubstr("above 0"));
}

}  // namespace
}  // namespace gradwarden
