#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/numerics/spike_rule.h"

namespace gradwarden::kernels {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// A rule with its state, fed step by step.
struct Rule {
  SpikeRuleOptions options;
  SpikeRuleState state;

  SpikeVerdict operator()(double value) { return judge(state, options, value).verdict; }
  void feed(double value, int times) {
    for (int i = 0; i < times; ++i) (*this)(value);
  }
};

TEST(SpikeRule, AcceptsEverythingFiniteDuringWarmupAndReportsNoMean) {
  Rule rule;
  for (int i = 0; i < 20; ++i) {
    const SpikeJudgement result = judge(rule.state, rule.options, i == 10 ? 1000.0 : 1.0);
    EXPECT_EQ(result.verdict, SpikeVerdict::kWarmup) << i;
    EXPECT_EQ(result.mean, 0.0);
    EXPECT_EQ(result.threshold, 0.0);
  }
  EXPECT_EQ(rule(1.0), SpikeVerdict::kAccepted);
}

TEST(SpikeRule, FlagsOnlyWhatLiesAboveTheMultipleOfTheMean) {
  Rule rule;
  rule.feed(2.0, 20);
  EXPECT_EQ(rule(6.0), SpikeVerdict::kAccepted);
  rule = Rule{};
  rule.feed(2.0, 20);
  const SpikeJudgement result = judge(rule.state, rule.options, std::nextafter(6.0, 7.0));
  EXPECT_EQ(result.verdict, SpikeVerdict::kSpike);
  EXPECT_EQ(result.mean, 2.0);
  EXPECT_EQ(result.threshold, 6.0);
}

TEST(SpikeRule, ASpikeDoesNotEnterTheWindow) {
  Rule rule;
  rule.feed(1.0, 50);
  EXPECT_EQ(rule(50.0), SpikeVerdict::kSpike);
  EXPECT_EQ(rule.state.count, 50u);
  EXPECT_EQ(window_mean(rule.state), 1.0);
}

TEST(SpikeRule, FindsA4xSpikeTenStepsAfterA50xSpike) {
  Rule rule;
  rule.feed(1.0, 100);
  EXPECT_EQ(rule(50.0), SpikeVerdict::kSpike);
  for (int i = 0; i < 9; ++i) EXPECT_EQ(rule(1.0), SpikeVerdict::kAccepted);
  EXPECT_EQ(rule(4.0), SpikeVerdict::kSpike);
}

TEST(SpikeRule, NaNAndInfinityNeitherEnterTheWindowNorDisableTheRule) {
  for (const double bad : {kNaN, -kNaN, kInf, -kInf}) {
    Rule rule;
    rule.feed(bad, 5);
    EXPECT_EQ(rule.state.count, 0u);
    rule.feed(1.0, 30);
    EXPECT_EQ(rule(bad), SpikeVerdict::kNonFinite);
    EXPECT_EQ(rule.state.count, 30u);
    EXPECT_EQ(window_mean(rule.state), 1.0);
    EXPECT_EQ(rule(4.0), SpikeVerdict::kSpike);
  }
}

TEST(SpikeRule, RelearnsALastingLevelShiftAndReportsItOnce) {
  Rule rule;
  rule.feed(1.0, 100);
  std::vector<SpikeVerdict> verdicts;
  for (int i = 0; i < 200; ++i) verdicts.push_back(rule(5.0 + 0.1 * (i % 3)));
  for (int i = 0; i < 19; ++i) EXPECT_EQ(verdicts[i], SpikeVerdict::kSpike) << i;
  EXPECT_EQ(verdicts[19], SpikeVerdict::kLevelShift);
  for (int i = 20; i < 200; ++i) EXPECT_EQ(verdicts[i], SpikeVerdict::kAccepted) << i;
  EXPECT_EQ(rule(16.0), SpikeVerdict::kSpike);
}

TEST(SpikeRule, RelearnsAlsoWhenNaNsLieBetweenTheNewValues) {
  Rule rule;
  rule.feed(1.0, 100);
  int shifts = 0;
  for (int i = 0; i < 60; ++i) shifts += rule(i % 2 == 0 ? kNaN : 8.0) == SpikeVerdict::kLevelShift;
  EXPECT_EQ(shifts, 1);
}

TEST(SpikeRule, AnAcceptedValueBetweenSpikesStartsTheirCountAgain) {
  Rule rule;
  rule.feed(1.0, 100);
  for (int i = 0; i < 200; ++i) {
    EXPECT_NE(rule(i % 10 == 9 ? 1.0 : 9.0), SpikeVerdict::kLevelShift) << i;
  }
  EXPECT_EQ(window_mean(rule.state), 1.0);
}

TEST(SpikeRule, WildSpikesInARowAreNoLevelUntilTheySettle) {
  Rule rule;
  rule.feed(1.0, 100);
  double value = 10.0;
  for (int i = 0; i < 40; ++i, value *= 2) EXPECT_EQ(rule(value), SpikeVerdict::kSpike) << i;
  for (int i = 0; i < 18; ++i) EXPECT_EQ(rule(70.0), SpikeVerdict::kSpike) << i;
  int steps = 18;
  while (rule(70.0) != SpikeVerdict::kLevelShift) ASSERT_LT(++steps, 21);
  EXPECT_EQ(window_mean(rule.state), 70.0);
}

TEST(SpikeRule, RestartsFromThePendingValuesOldestFirst) {
  Rule rule;
  rule.options.level_shift_after = 4;
  rule.options.warmup = 2;
  rule.options.window = 3;
  rule.feed(1.0, 3);
  // 1000 is no level with the others and has left the ring when four values agree.
  for (const double value : {1000.0, 10.0, 11.0, 12.0})
    EXPECT_EQ(rule(value), SpikeVerdict::kSpike);
  EXPECT_EQ(rule(13.0), SpikeVerdict::kLevelShift);
  // The window holds the three newest; the next value replaces the oldest of them, 11.
  EXPECT_EQ(rule.state.count, 3u);
  EXPECT_EQ(window_mean(rule.state), 12.0);
  EXPECT_EQ(rule(14.0), SpikeVerdict::kAccepted);
  EXPECT_EQ(window_mean(rule.state), 13.0);
}

TEST(SpikeRule, TheWindowForgetsItsOldestValue) {
  for (const std::uint32_t window : {1u, 2u, 7u, 100u, kMaxWindow}) {
    Rule rule;
    rule.options.window = window;
    rule.options.warmup = 1;
    rule.options.multiple = 1e6;
    std::mt19937_64 random(window);
    std::uniform_int_distribution<int> value(1, 1000);
    std::vector<double> history;
    for (std::uint32_t i = 0; i < 3 * window + 5; ++i) {
      history.push_back(value(random));
      rule(history.back());
      const std::size_t held = std::min<std::size_t>(history.size(), window);
      double sum = 0;
      for (std::size_t k = history.size() - held; k < history.size(); ++k) sum += history[k];
      ASSERT_EQ(window_mean(rule.state), sum / static_cast<double>(held)) << window << " " << i;
    }
  }
}

TEST(SpikeRule, StateOfAWiderWindowStaysInsideItsArrays) {
  Rule rule;
  rule.options.window = kMaxWindow;
  rule.feed(1.0, kMaxWindow - 1);
  rule.options.window = 10;
  rule.feed(1.0, 50);
  EXPECT_LT(rule.state.next, 10u);
  EXPECT_EQ(rule(4.0), SpikeVerdict::kSpike);
}

TEST(SpikeRule, AStateSavedByteForByteContinuesAsIfNeverStopped) {
  Rule whole;
  Rule first;
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> norm(0.0, 0.8);
  for (int i = 0; i < 150; ++i) {
    const double value = norm(random);
    whole(value);
    first(value);
  }
  Rule second;
  std::memcpy(&second.state, &first.state, sizeof(first.state));
  for (int i = 0; i < 400; ++i) {
    const double value = norm(random);
    const SpikeJudgement a = judge(whole.state, whole.options, value);
    const SpikeJudgement b = judge(second.state, second.options, value);
    ASSERT_EQ(a.verdict, b.verdict) << i;
    ASSERT_EQ(std::memcmp(&a.mean, &b.mean, sizeof(a.mean)), 0) << i;
  }
  EXPECT_EQ(std::memcmp(&whole.state, &second.state, sizeof(whole.state)), 0);
}

TEST(SpikeRule, StationaryNoiseIsNeverFlagged) {
  Rule rule;
  std::mt19937_64 random(11);
  std::lognormal_distribution<double> norm(0.0, 0.2);
  for (int i = 0; i < 100000; ++i) ASSERT_NE(rule(norm(random)), SpikeVerdict::kSpike) << i;
}

}  // namespace
}  // namespace gradwarden::kernels
