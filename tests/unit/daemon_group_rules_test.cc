// The rules that compare groups, and the one for the start of a run.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/rule_run.h"

namespace gradwarden::detect {
namespace {

void grouped(RuleRun& run, int count, double embedding, double layers, double head) {
  for (int i = 0; i < count; ++i) {
    Step step = run.around(1, 3);
    const double norms[] = {embedding * std::exp(0.1 * run.noise()),
                            layers * std::exp(0.1 * run.noise()),
                            head * std::exp(0.1 * run.noise())};
    step.group_norms = norms;
    step.group_names = kGroups;
    step.grad_norm = std::sqrt(norms[0] * norms[0] + norms[1] * norms[1] + norms[2] * norms[2]);
    run.see(step);
  }
}

TEST(GroupRule, AGroupThatLeavesItsUsualNormAloneIsNamed) {
  RuleRun run;
  grouped(run, 200, 0.01, 5, 1);
  grouped(run, 3, 0.3, 5, 1);  // thirty times, unseen in the whole
  grouped(run, 50, 0.01, 5, 1);
  const auto found = run.of(kGroupOutlier);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].group, "embedding");
  EXPECT_EQ(found[0].start_step, 201u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_TRUE(run.of(kGradSpike).empty());
}

TEST(GroupRule, APeakOfAnotherGroupNamesThatGroup) {
  RuleRun run;
  grouped(run, 200, 0.01, 5, 0.05);
  grouped(run, 3, 0.3, 5, 0.05);
  grouped(run, 3, 0.01, 5, 1.5);
  grouped(run, 50, 0.01, 5, 0.05);
  const auto found = run.of(kGroupOutlier);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].group, "head");
  EXPECT_GE(found[0].peak_step, 204u);
  EXPECT_GT(found[0].value, 1);
  EXPECT_NEAR(found[0].baseline, 0.05, 0.02);
  EXPECT_NEAR(found[0].threshold, 0.2, 0.1);
}

TEST(GroupRule, TellsWhenItGrowsWorseWithoutAHigherValue) {
  RuleRun run;
  grouped(run, 200, 0.005, 5, 0.05);
  grouped(run, 1, 0.005, 5, 0.4);  // eight times is information
  EXPECT_EQ(run.count(kGroupOutlier, Change::kBegin), 1u);
  EXPECT_EQ(run.count(kGroupOutlier, Change::kRise), 0u);
  grouped(run, 1, 0.15, 5, 0.05);  // thirty times is a warning
  EXPECT_EQ(run.count(kGroupOutlier, Change::kRise), 1u);
  const auto found = run.of(kGroupOutlier);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_EQ(found[0].group, "head") << "the group of the peak";
}

TEST(GroupRule, WhereTheWholeSpikesTheSpikeNamesTheGroupThatRoseFirst) {
  RuleRun run;
  grouped(run, 200, 1, 5, 1);
  grouped(run, 1, 1, 5, 200);
  grouped(run, 50, 1, 5, 1);
  EXPECT_TRUE(run.of(kGroupOutlier).empty());
  const auto spikes = run.of(kGradSpike);
  ASSERT_EQ(spikes.size(), 1u);
  EXPECT_EQ(spikes[0].group, "head");
}

TEST(GroupRule, AllGroupsTogetherAreNoGroups) {
  RuleRun run;
  grouped(run, 200, 1, 5, 1);
  grouped(run, 1, 30, 150, 30);
  grouped(run, 50, 1, 5, 1);
  EXPECT_TRUE(run.of(kGroupOutlier).empty());
  ASSERT_EQ(run.of(kGradSpike).size(), 1u);
  EXPECT_EQ(run.of(kGradSpike)[0].group, "");
}

TEST(DepthRule, AGroupThatDiesWhileTheOthersGoOnIsNamedOnce) {
  RuleRun run;
  grouped(run, 200, 1, 5, 1);
  grouped(run, 200, 1e-6, 5, 1);
  const auto found = run.of(kGradientCollapse);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].group, "embedding");
  EXPECT_EQ(found[0].severity, Severity::kWarning);
  EXPECT_GT(found[0].start_step, 200u);
}

TEST(DepthRule, GroupsThatFallTogetherDidNotDie) {
  RuleRun run;
  grouped(run, 200, 1, 5, 1);
  for (int i = 0; i < 1000; ++i)
    grouped(run, 1, std::pow(0.98, i), 5 * std::pow(0.98, i), std::pow(0.98, i));
  EXPECT_TRUE(run.of(kGradientCollapse).empty());
}

TEST(DepthRule, NormsThatGrowFromGroupToGroupByOrdersOfMagnitudeAreAdvice) {
  const std::vector<std::string> names = {"l0", "l1", "l2", "l3", "head"};
  for (const double step_up : {10.0, 2.0}) {
    RuleRun run;
    for (int i = 0; i < 300; ++i) {
      Step step = run.around(1, 3);
      std::vector<double> norms;
      for (int g = 0; g < 5; ++g)
        norms.push_back(std::pow(step_up, g - 4) * std::exp(0.1 * run.noise()));
      step.group_norms = norms;
      step.group_names = names;
      run.see(step);
    }
    const auto found = run.of(kDepthImbalance);
    ASSERT_EQ(found.size(), step_up > 5 ? 1u : 0u);
    if (!found.empty()) {
      EXPECT_EQ(found[0].group, "head");
    }
  }
}

TEST(InitialisationRule, GradientsThatExplodeAtTheStartAreAdviceButNotAfterARestart) {
  for (const bool restarted : {false, true}) {
    RuleRun run;
    for (int i = 0; i < 200; ++i) {
      Step step = run.around(1 + 1e6 * std::pow(0.5, i), 3);
      if (restarted) step.previous_attempt_end = 10;
      run.see(step);
    }
    EXPECT_EQ(run.of(kExplodingStart).size(), restarted ? 0u : 1u);
  }
}

}  // namespace
}  // namespace gradwarden::detect
