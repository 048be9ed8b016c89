// Attempts that follow another, and ranks and runs that fall silent.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/rule_run.h"

namespace gradwarden::detect {
namespace {

TEST(RestartRule, AnAttemptAfterAnotherSaysHowMuchIsDoneAgain) {
  RuleRun run;
  Step step = run.around(1, 3);
  step.previous_attempt_end = 900;
  run.see(step);
  step = run.around(1, 3);
  step.previous_attempt_end = 900;
  run.see(step);
  const auto found = run.of(kRestart);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].value, 1);
  EXPECT_EQ(found[0].baseline, 900);
}

TEST(StallDetector, SilenceOfThreeUsualIntervalsIsAStallThatNamesWhoIsBehind) {
  DetectorOptions options;
  options.stall.least_seconds = 1;
  RuleRun run(options);
  run.healthy(50);  // a second each
  std::vector<RankLiveness> ranks = {
      {0, 50, 52 * kSecond}, {1, 48, 52 * kSecond}, {2, 50, 52 * kSecond}};
  run.see_time({.now_ns = 52 * kSecond, .last_report_ns = 50 * kSecond, .ranks = ranks});
  EXPECT_FALSE(run.any_open());
  run.see_time({.now_ns = 54 * kSecond, .last_report_ns = 50 * kSecond, .ranks = ranks});
  run.see_time({.now_ns = 60 * kSecond, .last_report_ns = 50 * kSecond, .ranks = ranks});
  run.healthy(1);
  const auto found = run.of(kStalledRun);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].severity, Severity::kCritical);
  EXPECT_EQ(found[0].rank, 1u);
  EXPECT_EQ(found[0].last_step, 50u);
}

TEST(StallDetector, APauseThatTheRunIsKnownForIsNoStall) {
  DetectorOptions options;
  options.stall.least_seconds = 1;
  DefaultDetector detector(options);
  std::vector<Finding> findings;
  std::uint64_t now = kSecond;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    now += (i % 10 == 0 ? 30 : 1) * kSecond;  // an evaluation
    detector.observe({.step = i, .time_ns = now, .grad_norm = 1.0}, findings);
  }
  detector.observe_time({.now_ns = now + 60 * kSecond, .last_report_ns = now}, findings);
  EXPECT_TRUE(findings.empty());
  detector.observe_time({.now_ns = now + 95 * kSecond, .last_report_ns = now}, findings);
  EXPECT_EQ(findings.size(), 1u);
}

TEST(StallDetector, APauseThatComesSeldomIsNoStallOnceItCameTwice) {
  DefaultDetector detector(DetectorOptions{});
  std::vector<Finding> findings;
  std::uint64_t now = kSecond;
  for (std::uint64_t i = 1; i <= 2000; ++i) {
    now += (i % 500 == 0 ? 60 : 1) * kSecond;  // an evaluation
    detector.observe({.step = i, .time_ns = now, .grad_norm = 1.0}, findings);
  }
  std::string state;
  detector.save(state);
  DefaultDetector restored(DetectorOptions{});
  ASSERT_TRUE(restored.restore(state).ok());
  for (DefaultDetector* each : {&detector, &restored}) {
    findings.clear();
    each->observe_time({.now_ns = now + 65 * kSecond, .last_report_ns = now}, findings);
    EXPECT_TRUE(findings.empty());
    each->observe_time({.now_ns = now + 95 * kSecond, .last_report_ns = now}, findings);
    EXPECT_EQ(findings.size(), 1u);
  }
}

TEST(StallDetector, OneLongSilenceIsNotTakenForAPauseThatIsUsual) {
  DefaultDetector detector(DetectorOptions{});
  std::vector<Finding> findings;
  std::uint64_t now = kSecond;
  for (std::uint64_t i = 1; i <= 500; ++i) {
    now += (i == 300 ? 3600 : 1) * kSecond;
    detector.observe({.step = i, .time_ns = now, .grad_norm = 1.0}, findings);
  }
  detector.observe_time({.now_ns = now + 11 * kSecond, .last_report_ns = now}, findings);
  EXPECT_EQ(findings.size(), 1u);
}

TEST(StallDetector, ARankThatIsSilentWhileOthersLiveIsNamedUntilItIsBack) {
  RuleRun run;
  run.healthy(50);
  std::vector<RankLiveness> ranks = {
      {0, 50, 100 * kSecond}, {1, 50, 60 * kSecond}, {2, 50, 10 * kSecond, true}};
  const auto look = [&] {
    run.see_time({.now_ns = 100 * kSecond, .last_report_ns = 100 * kSecond, .ranks = ranks});
  };
  look();
  look();
  ranks[1].last_seen_ns = 99 * kSecond;
  look();
  const auto found = run.of(kSilentRank);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].rank, 1u);
  EXPECT_EQ(found[0].rank_count, 1u);
}

}  // namespace
}  // namespace gradwarden::detect
