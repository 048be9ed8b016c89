// Rows through the daemon's detectors, and what other rules would have done.
#include "daemon/replay/replay.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "daemon/detect/kinds.h"

namespace gradwarden::replay {
namespace {

std::vector<LogRow> healthy_rows(std::size_t count, std::uint64_t first_step = 0) {
  std::mt19937_64 random(17);
  std::normal_distribution<double> noise;
  std::vector<LogRow> rows(count);
  for (std::size_t i = 0; i < count; ++i) {
    rows[i].step = first_step + i;
    rows[i].loss = 3 * std::exp(0.02 * noise(random));
    rows[i].grad_norm = 0.5 * std::exp(0.1 * noise(random));
  }
  return rows;
}

LogContent content_of(std::vector<LogRow> rows) {
  LogContent content;
  content.rows = std::move(rows);
  return content;
}

TEST(Replay, FindsWhatTheDaemonWouldHaveFound) {
  std::vector<LogRow> rows = healthy_rows(400);
  *rows[200].grad_norm *= 12;
  *rows[202].loss *= 2.5;
  detect::DefaultDetector daemon({});
  std::vector<detect::Finding> findings;
  for (const LogRow& row : rows) {
    daemon.observe({.step = *row.step, .grad_norm = row.grad_norm, .loss = row.loss}, findings);
  }
  daemon.finish(findings);
  const ReplayResult result = replay(content_of(rows), {});
  ASSERT_EQ(result.incidents.size(), 1u);
  const detect::Incident& found = result.incidents[0].incident;
  EXPECT_EQ(found.start_step, 200u);
  EXPECT_EQ(found.kind, detect::kGradSpike);
  ASSERT_TRUE(found.joined.has_value());
  EXPECT_EQ(found.joined->start_step, 202u);
  EXPECT_EQ(found.value, findings.back().incident.value);
  EXPECT_EQ(found.last_step, findings.back().incident.last_step);
}

TEST(Replay, StepsThatGoBackBeginAnAttempt) {
  std::vector<LogRow> rows = healthy_rows(100);
  for (const LogRow& row : healthy_rows(80, 60)) rows.push_back(row);
  *rows[150].grad_norm *= 20;
  const ReplayResult result = replay(content_of(rows), {});
  ASSERT_EQ(result.attempts.size(), 2u);
  EXPECT_EQ(result.attempts[0].last_step, 99u);
  EXPECT_EQ(result.attempts[1].first_step, 60u);
  ASSERT_EQ(result.incidents.size(), 2u);
  EXPECT_EQ(result.incidents[0].incident.kind, detect::kRestart);
  EXPECT_EQ(result.incidents[0].incident.baseline, 99);
  EXPECT_EQ(result.incidents[1].attempt, 2u);
  EXPECT_EQ(result.incidents[1].incident.start_step, 110u);
}

TEST(Replay, AFewRowsAreEnoughNotToFail) {
  for (std::size_t count = 0; count < 20; ++count) {
    const ReplayResult result = replay(content_of(healthy_rows(count)), {});
    EXPECT_TRUE(result.incidents.empty());
    EXPECT_EQ(result.counterfactuals.norms, count);
    EXPECT_EQ(result.suggestions.skip_multiple, 0);
  }
}

TEST(Replay, CountsWhatClippingAndSkippingWouldHaveDone) {
  std::vector<LogRow> rows = healthy_rows(1000);
  for (const std::size_t i : {300u, 500u, 700u}) *rows[i].grad_norm *= 10;
  rows[800].grad_norm = NAN;
  ReplayOptions options;
  options.clip_at = 2;
  const ReplayResult result = replay(content_of(rows), options);
  EXPECT_EQ(result.counterfactuals.norms, 1000u);
  EXPECT_EQ(result.counterfactuals.clipped, 3u);
  EXPECT_EQ(result.counterfactuals.skipped, 3u);
  EXPECT_EQ(result.counterfactuals.non_finite, 1u);
  EXPECT_GT(result.suggestions.clip_at, 0.5);
  EXPECT_LT(result.suggestions.clip_at, 0.8);
  EXPECT_GE(result.suggestions.skip_multiple, 10);
  EXPECT_LE(result.suggestions.skipped, 1u);
}

TEST(Replay, AnOverflowThatTheScalerSkippedIsInformation) {
  std::vector<LogRow> rows = healthy_rows(100);
  rows[50].grad_norm = INFINITY;
  rows[50].overflows = 1;
  const ReplayResult result = replay(content_of(rows), {});
  ASSERT_EQ(result.incidents.size(), 1u);
  EXPECT_EQ(result.incidents[0].incident.kind, detect::kNonFinite);
  EXPECT_EQ(result.incidents[0].incident.severity, detect::Severity::kInfo);
}

TEST(Replay, ABatchOfAnEarlierAttemptThatSpikesAgainIsNamedAsTheCauseOfTheRun) {
  std::vector<LogRow> rows = healthy_rows(200);
  for (LogRow& row : healthy_rows(200, 100)) rows.push_back(row);
  for (LogRow& row : rows) row.batch_ids = {std::to_string(*row.step)};
  *rows[150].loss *= 3;
  *rows[250].loss *= 3;  // step 150 again
  const ReplayResult result = replay(content_of(rows), {});
  ASSERT_EQ(result.attempts.size(), 2u);
  EXPECT_EQ(result.diagnosis.cause, "data");
  EXPECT_GT(result.diagnosis.confidence, 0.8);
  EXPECT_EQ(result.incidents.back().incident.start_step, 150u);
  EXPECT_EQ(result.incidents.back().found_step, 150u);
}

TEST(Replay, AClipThresholdThatTheUserKnowsBringsAdvice) {
  ReplayOptions options;
  options.clip_at = 0.1;
  EXPECT_EQ(replay(content_of(healthy_rows(400)), options).diagnosis.cause, "");
  options.clips_there = true;
  EXPECT_EQ(replay(content_of(healthy_rows(400)), options).diagnosis.cause, "configuration");
}

}  // namespace
}  // namespace gradwarden::replay
