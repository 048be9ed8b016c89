#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <random>

#include "kernels/numerics/decision.h"

namespace gradwarden::kernels {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

StepStatistics finite(double norm) { return {norm, false, false}; }
StepStatistics broken(double norm = 1.0) { return {norm, true, false}; }
StepStatistics overflow() { return {1.0, true, true}; }

GuardPolicy rolling_policy() {
  GuardPolicy policy;
  policy.max_norm = 2.0;
  policy.skip_above_rolling_mean = true;
  policy.max_consecutive_skips = 3;
  return policy;
}

// Past the warm-up, with a rolling mean of 1.
GuardState warm_state(const GuardPolicy& policy) {
  GuardState state;
  for (int i = 0; i < 100; ++i) decide(policy, state, finite(1.0));
  return state;
}

TEST(Decide, AppliesAnOrdinaryStepAsItIs) {
  GuardPolicy policy;
  GuardState state;
  const StepVerdict verdict = decide(policy, state, finite(3.0));
  EXPECT_EQ(verdict.decision, Decision::kApply);
  EXPECT_EQ(verdict.reason, Reason::kWithinLimits);
  EXPECT_EQ(verdict.clip_coefficient, 1.0);
  EXPECT_FALSE(verdict.stop_requested);
}

TEST(Decide, ClipsAboveMaxNormByTheTorchCoefficient) {
  GuardPolicy policy;
  policy.max_norm = 1.0;
  GuardState state;
  const StepVerdict verdict = decide(policy, state, finite(4.0));
  EXPECT_EQ(verdict.decision, Decision::kClip);
  EXPECT_EQ(verdict.reason, Reason::kMaxNorm);
  EXPECT_EQ(verdict.clip_coefficient, 1.0 / (4.0 + 1e-6));
}

TEST(Decide, SkipsANonFiniteStepAndKeepsItOutOfTheWindow) {
  const GuardPolicy policy = rolling_policy();
  GuardState state = warm_state(policy);
  const StepVerdict verdict = decide(policy, state, broken(50.0));
  EXPECT_EQ(verdict.decision, Decision::kSkip);
  EXPECT_EQ(verdict.reason, Reason::kNonFinite);
  EXPECT_EQ(verdict.clip_coefficient, 1.0);
  EXPECT_EQ(state.consecutive_skips, 1u);
  EXPECT_EQ(window_mean(state.spike), 1.0);
  EXPECT_EQ(decide(policy, state, finite(4.0)).reason, Reason::kRollingMean);
}

TEST(Decide, LeavesANonFiniteStepAloneWhenThePolicyLetsItThrough) {
  GuardPolicy policy = rolling_policy();
  policy.skip_non_finite = false;
  GuardState state = warm_state(policy);
  const StepVerdict verdict = decide(policy, state, broken(50.0));
  EXPECT_EQ(verdict.decision, Decision::kApply);
  EXPECT_EQ(verdict.clip_coefficient, 1.0);
}

TEST(Decide, TreatsANormThatLeftFloat64AsNonFiniteInsteadOfScalingByZero) {
  GuardPolicy policy;
  policy.max_norm = 1.0;
  GuardState state;
  for (const double norm : {kInf, std::numeric_limits<double>::quiet_NaN()}) {
    const StepVerdict verdict = decide(policy, state, finite(norm));
    EXPECT_EQ(verdict.decision, Decision::kSkip) << norm;
    EXPECT_EQ(verdict.reason, Reason::kNonFinite) << norm;
    EXPECT_EQ(verdict.clip_coefficient, 1.0) << norm;
  }
}

TEST(Decide, SkipsAboveTheAbsoluteLimitEvenDuringWarmup) {
  GuardPolicy policy;
  policy.skip_above = 10.0;
  GuardState state;
  const StepVerdict verdict = decide(policy, state, finite(10.5));
  EXPECT_EQ(verdict.decision, Decision::kSkip);
  EXPECT_EQ(verdict.reason, Reason::kAbsoluteLimit);
  EXPECT_EQ(verdict.threshold, 10.0);
  EXPECT_EQ(decide(policy, state, finite(10.0)).decision, Decision::kApply);
}

// Whichever rule looks next, and also while that one does not judge yet.
TEST(Decide, WhatTheAbsoluteLimitSkipsIsForgottenByAllRules) {
  GuardPolicy policy = rolling_policy();
  policy.max_norm = 0;
  policy.skip_above = 100;
  policy.skip_above_z = 6;
  for (const int before : {19, 150}) {
    GuardState state;
    for (int i = 0; i < before; ++i) decide(policy, state, finite(i % 2 == 0 ? 0.9 : 1.1));
    EXPECT_EQ(decide(policy, state, finite(1e6)).reason, Reason::kAbsoluteLimit) << before;
    for (int i = 0; i < 40; ++i) decide(policy, state, finite(i % 2 == 0 ? 0.9 : 1.1));
    const StepVerdict verdict = decide(policy, state, finite(50));
    EXPECT_EQ(verdict.reason, Reason::kRollingMean) << before;
    EXPECT_NE(verdict.broken_rules & rule_bit(Reason::kZScore), 0U) << before;
    EXPECT_NEAR(verdict.rolling_mean, 1, 0.02) << before;
  }
}

TEST(Decide, SkipsAboveTheRollingMeanAndSaysTheLimit) {
  const GuardPolicy policy = rolling_policy();
  GuardState state = warm_state(policy);
  const StepVerdict verdict = decide(policy, state, finite(3.5));
  EXPECT_EQ(verdict.decision, Decision::kSkip);
  EXPECT_EQ(verdict.reason, Reason::kRollingMean);
  EXPECT_EQ(verdict.rolling_mean, 1.0);
  EXPECT_EQ(verdict.threshold, 3.0);
}

TEST(Decide, ObservesButDoesNotSkipSpikesUnlessAsked) {
  GuardPolicy policy = rolling_policy();
  policy.skip_above_rolling_mean = false;
  GuardState state = warm_state(policy);
  const StepVerdict verdict = decide(policy, state, finite(50.0));
  EXPECT_EQ(verdict.decision, Decision::kClip);
  EXPECT_EQ(verdict.reason, Reason::kMaxNorm);
  EXPECT_EQ(verdict.rolling_mean, 1.0);
  EXPECT_EQ(verdict.threshold, 0.0);
  EXPECT_EQ(window_mean(state.spike), 1.0);
}

TEST(Decide, ReportsTheLowerOfTwoLimits) {
  GuardPolicy policy = rolling_policy();
  policy.skip_above = 2.5;
  GuardState state = warm_state(policy);
  EXPECT_EQ(decide(policy, state, finite(1.0)).threshold, 2.5);
  policy.skip_above = 7.0;
  EXPECT_EQ(decide(policy, state, finite(1.0)).threshold, 3.0);
}

TEST(Decide, AfterTooManySkipsAppliesClippedUntilTheSignalIsBack) {
  const GuardPolicy policy = rolling_policy();
  GuardState state = warm_state(policy);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(decide(policy, state, finite(8.0)).decision, Decision::kSkip) << i;
  }
  for (int i = 0; i < 4; ++i) {
    const StepVerdict verdict = decide(policy, state, finite(8.0));
    EXPECT_EQ(verdict.decision, Decision::kClip) << i;
    EXPECT_EQ(verdict.reason, Reason::kSkipLimit) << i;
    EXPECT_EQ(verdict.clip_coefficient, clip_coefficient(8.0, 2.0)) << i;
    EXPECT_FALSE(verdict.stop_requested) << i;
  }
  EXPECT_EQ(decide(policy, state, finite(1.0)).reason, Reason::kWithinLimits);
  EXPECT_EQ(state.consecutive_skips, 0u);
  EXPECT_EQ(decide(policy, state, finite(8.0)).decision, Decision::kSkip);
}

TEST(Decide, AfterTooManySkipsGoesOnSkippingAndAsksToStop) {
  GuardPolicy policy = rolling_policy();
  policy.fallback = Fallback::kRequestStop;
  GuardState state = warm_state(policy);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(decide(policy, state, finite(8.0)).stop_requested) << i;
  for (int i = 0; i < 3; ++i) {
    const StepVerdict verdict = decide(policy, state, finite(8.0));
    EXPECT_EQ(verdict.decision, Decision::kSkip) << i;
    EXPECT_EQ(verdict.reason, Reason::kSkipLimit) << i;
    EXPECT_TRUE(verdict.stop_requested) << i;
  }
}

TEST(Decide, NeverAppliesANonFiniteStepWhateverTheFallback) {
  for (const Fallback fallback : {Fallback::kApplyClipped, Fallback::kRequestStop}) {
    GuardPolicy policy = rolling_policy();
    policy.fallback = fallback;
    GuardState state = warm_state(policy);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(decide(policy, state, broken()).reason, Reason::kNonFinite) << i;
    }
    for (int i = 0; i < 20; ++i) {
      const StepVerdict verdict = decide(policy, state, broken());
      EXPECT_EQ(verdict.decision, Decision::kSkip) << i;
      EXPECT_EQ(verdict.reason, Reason::kSkipLimit) << i;
      EXPECT_TRUE(verdict.stop_requested) << i;
    }
  }
}

TEST(Decide, ALossScaleOverflowNeitherCountsTowardsTheBoundNorResetsIt) {
  const GuardPolicy policy = rolling_policy();
  GuardState state = warm_state(policy);
  decide(policy, state, finite(8.0));
  decide(policy, state, finite(8.0));
  const GuardState before = state;
  for (int i = 0; i < 50; ++i) {
    const StepVerdict verdict = decide(policy, state, overflow());
    EXPECT_EQ(verdict.decision, Decision::kSkip) << i;
    EXPECT_EQ(verdict.reason, Reason::kLossScaleOverflow) << i;
    EXPECT_FALSE(verdict.stop_requested) << i;
  }
  EXPECT_EQ(std::memcmp(&before, &state, sizeof(state)), 0);
  EXPECT_EQ(decide(policy, state, finite(8.0)).decision, Decision::kSkip);
  EXPECT_EQ(decide(policy, state, finite(8.0)).reason, Reason::kSkipLimit);
}

TEST(Decide, TakesALevelShiftOnceAndAppliesFromThereOn) {
  GuardPolicy policy = rolling_policy();
  policy.max_norm = 0;
  policy.max_consecutive_skips = 100;
  GuardState state = warm_state(policy);
  int shifts = 0;
  for (int i = 0; i < 60; ++i) {
    const StepVerdict verdict = decide(policy, state, finite(5.0));
    shifts += verdict.level_shift;
    EXPECT_EQ(verdict.decision, i < 19 ? Decision::kSkip : Decision::kApply) << i;
  }
  EXPECT_EQ(shifts, 1);
  EXPECT_EQ(state.consecutive_skips, 0u);
}

TEST(Decide, EqualStateAndStatisticsGiveEqualBitsOnEveryRank) {
  GuardPolicy policy = rolling_policy();
  policy.skip_above = 40.0;
  GuardState a;
  GuardState b;
  std::mt19937_64 random(5);
  std::lognormal_distribution<double> norm(0.0, 1.5);
  for (int i = 0; i < 10000; ++i) {
    const StepStatistics step{norm(random), random() % 50 == 0, random() % 2 == 0};
    const StepVerdict va = decide(policy, a, step);
    const StepVerdict vb = decide(policy, b, step);
    ASSERT_EQ(va.decision, vb.decision) << i;
    ASSERT_EQ(va.reason, vb.reason) << i;
    ASSERT_EQ(std::memcmp(&va.clip_coefficient, &vb.clip_coefficient, sizeof(double)), 0) << i;
    ASSERT_EQ(std::memcmp(&va.threshold, &vb.threshold, sizeof(double)), 0) << i;
    ASSERT_EQ(std::memcmp(&a, &b, sizeof(a)), 0) << i;
  }
}

}  // namespace
}  // namespace gradwarden::kernels
