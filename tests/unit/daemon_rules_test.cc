// The rules for single quantities, each in a detector's company.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/rule_run.h"

namespace gradwarden::detect {
namespace {

TEST(VanishingRule, ANormThatStaysTinyIsOneWarning) {
  RuleRun run;
  run.healthy(200, 1e-7);
  const auto found = run.of(kVanishing);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_LE(found[0].start_step, 10u);
  EXPECT_EQ(found[0].last_step, 200u);
}

TEST(VanishingRule, ANormThatGrowsOutOfATinyStartIsNone) {
  RuleRun run;
  for (int i = 0; i < 120; ++i) run.healthy(1, 1e-9 * std::pow(1.12, i));
  EXPECT_TRUE(run.of(kVanishing).empty());
}

TEST(VanishingRule, WhileTheLossFallsItIsInformation) {
  RuleRun run;
  for (int i = 0; i < 200; ++i) run.healthy(1, 1e-6, 5 * std::pow(0.99, i));
  const auto found = run.of(kVanishing);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kInfo);
}

TEST(VanishingRule, ThatTheLossFellOnceIsNoExcuseForEver) {
  RuleRun run;
  for (int i = 0; i < 10; ++i) run.healthy(1, 1, 2.5 - 0.02 * i);
  for (int i = 0; i < 500; ++i) run.healthy(1, 1e-6, 2.3);
  const auto found = run.of(kVanishing);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
}

TEST(VanishingRule, ALossThatStopsFallingMakesAWarningOfTheInformation) {
  RuleRun run;
  for (int i = 0; i < 200; ++i) run.healthy(1, 1e-6, 5 * std::pow(0.99, i));
  for (int i = 0; i < 400; ++i) run.healthy(1, 1e-6, 0.7);
  EXPECT_EQ(run.count(kVanishing, Change::kBegin), 1u);
  EXPECT_EQ(run.count(kVanishing, Change::kRise), 1u);
}

TEST(CollapseRule, ANormThatDropsToASmallPartIsAWarningFromItsFirstRow) {
  RuleRun run;
  run.healthy(200);
  run.healthy(60, 1e-3);
  const auto found = run.of(kGradientCollapse);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].start_step, 201u);
  EXPECT_NEAR(found[0].baseline, 1, 0.1);
  EXPECT_TRUE(run.of(kVanishing).empty());
}

TEST(CollapseRule, GradientsThatAreAllZeroCollapsed) {
  RuleRun run;
  run.healthy(200);
  run.healthy(30, 0);
  EXPECT_EQ(run.of(kGradientCollapse).size(), 1u);
}

TEST(CollapseRule, ASlowDecayAndAShortDipAreNone) {
  RuleRun run;
  for (int i = 0; i < 2000; ++i) run.healthy(1, std::pow(0.995, i));
  run.healthy(5, 1e-9);
  EXPECT_TRUE(run.of(kGradientCollapse).empty());
}

void clip(RuleRun& run, int count, double share) {
  for (int i = 0; i < count; ++i) {
    Step step = run.around(1, 3);
    step.clip_threshold = 0.5;
    step.clipped = std::floor((i + 1) * share) > std::floor(i * share);
    run.see(step);
  }
}

TEST(ClipRateRule, ClippingMostStepsIsAdviceThatEndsWhenItDoes) {
  RuleRun run;
  clip(run, 400, 0.8);
  clip(run, 2000, 0.02);
  const auto found = run.of(kClipRateHigh);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kInfo);
  EXPECT_EQ(found[0].start_step, 200u);
  EXPECT_LT(found[0].last_step, 1000u);
  EXPECT_NEAR(found[0].value, 0.8, 0.01);
  EXPECT_EQ(found[0].baseline, 0.5);
}

TEST(ClipRateRule, ARateBetweenFiveAndTenPerCentIsAHintGivenOnce) {
  RuleRun run;
  clip(run, 3000, 0.07);
  EXPECT_EQ(run.of(kClipRateRaised).size(), 1u);
  EXPECT_TRUE(run.of(kClipRateHigh).empty());
  EXPECT_TRUE(run.of(kClipNever).empty());
}

TEST(ClipRateRule, AThresholdThatNeverActsIsSaidOnceAndOnlyInALongRun) {
  RuleRun shorter;
  clip(shorter, 9999, 0);
  EXPECT_TRUE(shorter.of(kClipNever).empty());
  RuleRun longer;
  clip(longer, 20500, 0);
  EXPECT_EQ(longer.of(kClipNever).size(), 1u);
}

TEST(ClipRateRule, WhereNoThresholdIsKnownNothingIsSaid) {
  RuleRun run;
  run.healthy(11000);
  EXPECT_TRUE(run.of(kClipNever).empty());
}

TEST(DivergenceRule, ALossThatRisesSteadilyIsFoundThoughNoRowStandsOut) {
  RuleRun run;
  run.healthy(400);
  for (int i = 0; i < 300; ++i) run.healthy(1, 1, 3 * std::pow(1.002, i));
  const auto found = run.of(kDivergence);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_GE(found[0].start_step, 390u);
  EXPECT_LE(found[0].start_step, 470u);
  EXPECT_NEAR(found[0].baseline, 3, 0.1);
}

TEST(DivergenceRule, FallingFlatAndShiftedLossesAreNone) {
  RuleRun run;
  for (int i = 0; i < 600; ++i) run.healthy(1, 1, 9 * std::pow(0.998, i));
  run.healthy(1500, 1, 2.7);
  run.healthy(600, 1, 4.5);
  EXPECT_TRUE(run.of(kDivergence).empty());
}

void overflow(RuleRun& run, double scale) {
  Step step = run.around(1, 3);
  step.overflows = 1;
  step.loss_scale = scale;
  run.see(step);
}
void scaled(RuleRun& run, int count, double scale) {
  for (int i = 0; i < count; ++i) {
    Step step = run.around(1, 3);
    step.loss_scale = scale;
    run.see(step);
  }
}

TEST(LossScaleRule, TheSearchForAFirstScaleAndOneOverflowPerRaiseAreHealthy) {
  RuleRun run;
  double scale = 65536;
  for (int i = 0; i < 10; ++i) overflow(run, scale /= 2);
  for (int i = 0; i < 10; ++i) {
    scaled(run, 200, scale);
    overflow(run, scale);
  }
  EXPECT_TRUE(run.of(kOverflowBurst).empty());
  EXPECT_TRUE(run.of(kLossScaleCollapse).empty());
}

TEST(LossScaleRule, OverflowsCloseTogetherAreABurst) {
  RuleRun run;
  scaled(run, 300, 1024);
  for (int i = 0; i < 12; ++i) {
    overflow(run, 1024);
    scaled(run, 20, 1024);
  }
  const auto found = run.of(kOverflowBurst);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].start_step, 301u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_TRUE(run.of(kLossScaleCollapse).empty());
}

TEST(LossScaleRule, AScaleThatFallsAndFallsCollapsesOnce) {
  RuleRun run;
  scaled(run, 300, 32768);
  double scale = 32768;
  for (int i = 0; i < 14; ++i) overflow(run, scale /= 2);
  const auto found = run.of(kLossScaleCollapse);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].value, 2);
  EXPECT_EQ(found[0].baseline, 32768);
  EXPECT_EQ(found[0].peak_step, 314u);
}

TEST(DivergenceRule, ALossThatDriftsUpAndStaysThereIsFound) {
  RuleRun run;
  for (int i = 0; i < 400; ++i) run.healthy(1, 1, 3 * std::exp(0.2 * run.noise()));
  for (int i = 0; i < 400; ++i) {
    run.healthy(1, 1, 3 * std::min(2.0, 1 + i * 0.02) * std::exp(0.2 * run.noise()));
  }
  EXPECT_GE(run.of(kDivergence).size(), 1u);
}

TEST(UpdateNormRule, AnUpdateThatTriplesIsFoundAndAScheduleIsNot) {
  RuleRun run;
  double rate = 0;
  for (int i = 1; i <= 600; ++i) {
    rate = i < 300 ? 1e-3 * i / 300 : 1e-3;
    Step step = run.around(1, 3);
    step.learning_rate = rate;
    step.update_norm = 10 * rate * std::exp(0.05 * run.noise()) * (i == 500 ? 8 : 1);
    run.see(step);
  }
  const auto found = run.of(kUpdateSpike);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].start_step, 500u);
  EXPECT_NEAR(found[0].baseline, 1e-2, 1e-3);
}

TEST(SpikeFrequencyRule, SpikesThatComeEverMoreOftenAreAdviceAndSteadyOnesAreNot) {
  RuleRun growing;
  RuleRun steady;
  double gap = 400;
  for (int i = 0; i < 16; ++i, gap *= 0.75) {
    growing.healthy(static_cast<int>(gap) + 25);
    growing.healthy(1, 12);
    steady.healthy(100);
    steady.healthy(1, 12);
  }
  const auto found = growing.of(kSpikesGrow);
  ASSERT_GE(found.size(), 1u);
  EXPECT_LE(found.size(), 2u);
  EXPECT_EQ(found[0].severity, Severity::kInfo);
  EXPECT_TRUE(steady.of(kSpikesGrow).empty());
}

}  // namespace
}  // namespace gradwarden::detect
