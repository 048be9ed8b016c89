// The rules beyond the rolling mean: z-score of the exponential average, robust z-score,
// percentile; and the four ways in which such rules fail elsewhere, each by name.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/numerics/decision.h"
#include "kernels/numerics/order_statistics.h"

namespace gradwarden::kernels {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A run of norms with log-normal noise.
class Trainer {
 public:
  explicit Trainer(const GuardPolicy& policy, double sigma = 0.1)
      : policy_(policy), noise_(0, sigma) {}
  StepVerdict step(double norm) {
    StepStatistics s;
    s.norm = std::isfinite(norm) ? norm : 0;
    s.non_finite = !std::isfinite(norm);
    return decide(policy_, state_, s);
  }
  StepVerdict noisy(double level) { return step(level * std::exp(noise_(random_))); }
  void settle(int steps, double level = 1) {
    for (int i = 0; i < steps; ++i) noisy(level);
  }
  GuardState& state() { return state_; }

 private:
  GuardPolicy policy_;
  GuardState state_;
  std::mt19937 random_{11};
  std::normal_distribution<double> noise_;
};

GuardPolicy z_score(double z = 6) {
  GuardPolicy policy;
  policy.skip_above_z = z;
  return policy;
}
GuardPolicy robust(double z = 6) {
  GuardPolicy policy;
  policy.spike.robust_z = z;
  return policy;
}
GuardPolicy clip_by(ClipRule rule, double value) {
  GuardPolicy policy;
  policy.clip_rule = rule;
  policy.clip_value = value;
  return policy;
}

TEST(OrderStatistics, SelectAsSortingDoes) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<double> values(1 + random() % 120);
    for (double& v : values) v = static_cast<double>(random() % (1 + random() % 200));
    std::vector<double> sorted = values;
    std::sort(sorted.begin(), sorted.end());
    const auto count = static_cast<std::uint32_t>(values.size());
    const std::uint32_t rank = random() % count;
    std::vector<double> work = values;
    ASSERT_EQ(select_rank(work.data(), count, rank), sorted[rank]);
    std::sort(work.begin(), work.end());
    ASSERT_EQ(work, sorted) << "nothing is lost";
    work = values;
    ASSERT_EQ(median_of(work.data(), count), sorted[(count - 1) / 2]);
    const double percent = 1 + random() % 100;
    const auto needed = static_cast<std::size_t>(std::ceil(percent * count / 100));
    ASSERT_EQ(percentile_of(work.data(), count, percent),
              sorted[std::max<std::size_t>(needed, 1) - 1])
        << percent << " % of " << count;
  }
}

// llm.c and ZClip: after one NaN every later score is NaN, and the rule is off for good.
TEST(PeersFail, OneNaNDoesNotBlindTheZScore) {
  for (const GuardPolicy& policy : {z_score(), robust()}) {
    Trainer run(policy);
    run.settle(100);
    EXPECT_EQ(run.step(kNan).reason, Reason::kNonFinite);
    EXPECT_EQ(run.noisy(1).decision, Decision::kApply);
    EXPECT_EQ(run.step(20).decision, Decision::kSkip) << "a spike right after the NaN is seen";
  }
}

// OLMo: one NaN in the window makes 128 clean steps get skipped.
TEST(PeersFail, OneNaNSkipsNoCleanStep) {
  for (const GuardPolicy& policy : {z_score(), robust()}) {
    Trainer run(policy);
    run.settle(100);
    run.step(kNan);
    for (int i = 0; i < 200; ++i) ASSERT_EQ(run.noisy(1).decision, Decision::kApply) << i;
  }
}

// llm.c scores a value that is already in its window of 128: no score exceeds 11.27, so a limit
// above it never fires.
TEST(PeersFail, AScoreIsNotCappedByTheWindow) {
  for (const double z : {12.0, 50.0, 1000.0}) {
    Trainer run(z_score(z), 0.01);
    run.settle(100);
    EXPECT_EQ(run.step(1e6).reason, Reason::kZScore) << "z = " << z;
  }
}

TEST(PeersFail, TwoSpikesDoNotMaskTheThird) {
  for (const GuardPolicy& policy : {z_score(), robust()}) {
    Trainer run(policy);
    run.settle(100);
    for (const double spike : {100.0, 100.0, 20.0, 5.0}) {
      EXPECT_EQ(run.step(spike).decision, Decision::kSkip) << spike;
    }
  }
}

// ZClip: clipped values enter the average, its variance collapses, and a lasting rise is clipped on
// all of the next 3,000 steps.
TEST(PeersFail, ALastingRiseIsNotClippedForEver) {
  struct Rise {
    double sigma;
    double factor;
  };
  for (const Rise rise : {Rise{0.2, 3}, Rise{0.1, 2}, Rise{0.1, 10}, Rise{0.05, 1.5}}) {
    Trainer run(clip_by(ClipRule::kZScore, 2.5), rise.sigma);
    run.settle(300);
    int clipped = 0;
    for (int i = 0; i < 3000; ++i) {
      if (run.noisy(rise.factor).decision == Decision::kClip && i >= 500) ++clipped;
    }
    EXPECT_LT(clipped, 2500 / 10) << "sigma " << rise.sigma << ", x " << rise.factor;
    EXPECT_NEAR(run.state().ema.mean, rise.factor, 0.35 * rise.factor);
  }
}

TEST(PeersFail, ALastingRiseIsNotSkippedForEver) {
  for (const GuardPolicy& policy : {z_score(), robust()}) {
    Trainer run(policy);
    run.settle(200);
    int skipped = 0;
    for (int i = 0; i < 500; ++i) skipped += run.noisy(10).decision == Decision::kSkip;
    EXPECT_LE(skipped, 40);
    EXPECT_EQ(run.step(200).decision, Decision::kSkip) << "and the rule is still on";
  }
}

TEST(ZScore, JudgesAfterWarmupAboveMeanPlusZDeviations) {
  Trainer run(z_score(3), 0);
  std::vector<double> values;
  for (int i = 0; i < 20; ++i) values.push_back(i % 2 == 0 ? 0.8 : 1.2);
  for (const double v : values) EXPECT_EQ(run.step(v).decision, Decision::kApply);
  // Mean 1, deviation 0.2: the limit is 1.6.
  EXPECT_EQ(run.step(1.59).decision, Decision::kApply);
  Trainer other(z_score(3), 0);
  for (const double v : values) other.step(v);
  const StepVerdict verdict = other.step(1.61);
  EXPECT_EQ(verdict.reason, Reason::kZScore);
  EXPECT_NEAR(verdict.threshold, 1.6, 1e-12);
}

TEST(ZScore, DoesNotFlagTriflesInAVerySteadyRun) {
  Trainer run(z_score(6), 0);
  for (int i = 0; i < 100; ++i) run.step(1);
  EXPECT_EQ(run.step(1.05).decision, Decision::kApply);
  EXPECT_EQ(run.step(1.2).decision, Decision::kSkip);
}

TEST(RobustZScore, IsTheScaledMedianDeviationOfTheLogarithms) {
  std::mt19937 random(5);
  std::lognormal_distribution<double> norm(0, 0.3);
  SpikeRuleState state;
  SpikeRuleOptions options;
  options.robust_z = 4;
  std::vector<double> logs;
  for (int i = 0; i < 77; ++i) {
    const double value = norm(random);
    logs.push_back(std::log(value));
    push_accepted(state, options, value);
  }
  std::sort(logs.begin(), logs.end());
  const double median = logs[38];
  std::vector<double> deviations;
  for (const double v : logs) deviations.push_back(std::fabs(v - median));
  std::sort(deviations.begin(), deviations.end());
  const double expected = std::exp(median + 4 * 1.4826 * deviations[38]);
  EXPECT_NEAR(spike_thresholds(state, options).robust, expected, 1e-12 * expected);
}

TEST(RobustZScore, IsNotMovedByAFifthOfWildValuesInTheWindow) {
  SpikeRuleState state;
  SpikeRuleOptions options;
  options.robust_z = 5;
  for (int i = 0; i < 100; ++i)
    push_accepted(state, options, i % 5 == 0 ? 1e6 : 1 + 0.01 * (i % 7));
  EXPECT_LT(spike_thresholds(state, options).robust, 2);
}

TEST(RobustZScore, HasNoLimitWhereHalfOfTheWindowIsZero) {
  SpikeRuleState state;
  SpikeRuleOptions options;
  options.robust_z = 5;
  for (int i = 0; i < 100; ++i) push_accepted(state, options, i % 3 == 0 ? 1 : 0);
  EXPECT_EQ(spike_thresholds(state, options).robust, 0);
}

TEST(ClipThreshold, IsThePercentileOfTheWindow) {
  GuardPolicy policy = clip_by(ClipRule::kPercentile, 10);
  policy.spike.window = 50;
  Trainer run(policy, 0);
  for (int i = 1; i <= 50; ++i) run.step(1 + 0.01 * i);  // the last 50: 1.01 to 1.50
  const StepVerdict verdict = run.step(1.2);
  EXPECT_NEAR(verdict.clip_threshold, 1.05, 1e-12);
  EXPECT_NEAR(verdict.clip_coefficient, 1.05 / (1.2 + 1e-6), 1e-12);
  EXPECT_EQ(verdict.reason, Reason::kMaxNorm);
}

TEST(ClipThreshold, IsAMultipleOfTheRollingMeanAndMaxNormItsUpperBound) {
  GuardPolicy policy = clip_by(ClipRule::kRollingMean, 1.5);
  policy.max_norm = 5;
  Trainer run(policy, 0);
  EXPECT_EQ(run.step(7).clip_threshold, 5) << "during warm-up";
  for (int i = 0; i < 120; ++i) run.step(2);
  EXPECT_NEAR(run.step(2).clip_threshold, 3, 1e-9);
  for (int i = 0; i < 120; ++i) run.step(4.5);
  EXPECT_EQ(run.step(4.5).clip_threshold, 5);
}

TEST(ReducedLearningRate, ComesInPlaceOfASkipAndIsBounded) {
  GuardPolicy policy = z_score();
  policy.on_spike = SpikeAction::kReduceLearningRate;
  policy.least_learning_rate_factor = 0.25;
  policy.max_norm = 2;
  Trainer run(policy, 0.05);
  run.settle(100);
  const StepVerdict slight = run.step(2.5);
  EXPECT_EQ(slight.decision, Decision::kReduce);
  EXPECT_NEAR(slight.learning_rate_factor, slight.threshold / 2.5, 1e-12);
  EXPECT_GT(slight.learning_rate_factor, 0.25);
  EXPECT_NEAR(slight.clip_coefficient, 2 / (2.5 + 1e-6), 1e-12) << "it is clipped too";
  const StepVerdict wild = run.step(1e6);
  EXPECT_EQ(wild.decision, Decision::kReduce);
  EXPECT_EQ(wild.learning_rate_factor, 0.25);
  EXPECT_EQ(run.step(kNan).decision, Decision::kSkip) << "a NaN is never applied";
  EXPECT_EQ(run.noisy(1).learning_rate_factor, 1);
}

TEST(BrokenRules, NameAllRulesThatAStepBreaksNotOnlyTheOneThatDecides) {
  GuardPolicy policy = z_score();
  policy.spike.robust_z = 6;
  policy.skip_above = 50;
  policy.max_norm = 3;
  Trainer run(policy);
  run.settle(100);
  const StepVerdict verdict = run.step(60);
  EXPECT_EQ(verdict.reason, Reason::kAbsoluteLimit);
  EXPECT_EQ(verdict.broken_rules, rule_bit(Reason::kAbsoluteLimit) |
                                      rule_bit(Reason::kRollingMean) | rule_bit(Reason::kZScore) |
                                      rule_bit(Reason::kRobustZScore) | rule_bit(Reason::kMaxNorm));
  EXPECT_EQ(run.noisy(1).broken_rules, 0U);
}

}  // namespace
}  // namespace gradwarden::kernels
