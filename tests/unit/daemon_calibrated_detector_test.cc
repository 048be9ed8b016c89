// Loss and grad norm judged together, alone and through the daemon's detector.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <random>
#include <vector>

#include "daemon/detect/calibrated_detector.h"
#include "daemon/detect/default_detector.h"
#include "daemon/detect/kinds.h"

namespace gradwarden::detect {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// A healthy run with what `shape` makes of each step.
class SignalRun {
 public:
  void healthy(int count) {
    for (int i = 0; i < count; ++i) step(1, 1);
  }
  // Times what is normal.
  void step(std::optional<double> norm, std::optional<double> loss) {
    Step step{.step = ++last_, .time_ns = last_ * 10};
    if (norm) step.grad_norm = *norm * std::exp(0.1 * noise_(random_));
    if (loss) step.loss = *loss * 3 * std::exp(0.02 * noise_(random_));
    detector_.observe(step, findings_);
  }
  std::vector<Incident> finish() {
    detector_.finish(findings_);
    std::vector<Incident> ended;
    for (const Finding& finding : findings_) {
      if (finding.change == Change::kEnd) ended.push_back(finding.incident);
    }
    return ended;
  }
  std::uint64_t last() const { return last_; }

 private:
  std::mt19937_64 random_{20261};
  std::normal_distribution<double> noise_;
  DefaultDetector detector_{{}};
  std::vector<Finding> findings_;
  std::uint64_t last_ = 0;
};

TEST(CalibratedDetector, AHealthyRunHasNoIncident) {
  SignalRun run;
  run.healthy(5000);
  EXPECT_TRUE(run.finish().empty());
}

TEST(CalibratedDetector, TheFirstStepsOfARunHaveNoNormalAndNoIncident) {
  SignalRun run;
  run.healthy(8);
  for (const double norm : {5.0, 4.0, 3.0, 2.0}) run.step(norm, 1);  // the rate warms up
  run.healthy(200);
  EXPECT_TRUE(run.finish().empty());
}

TEST(CalibratedDetector, ALossOutlierAloneIsALossSpike) {
  SignalRun run;
  run.healthy(200);
  run.step(1, 1.3);
  run.healthy(50);
  const std::vector<Incident> ended = run.finish();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].kind, kLossSpike);
  EXPECT_EQ(ended[0].signal, kLossSignal);
  EXPECT_EQ(ended[0].severity, Severity::kWarning);
  EXPECT_EQ(ended[0].peak_step, 201u);
  EXPECT_NEAR(ended[0].baseline, 3, 0.1);
  EXPECT_GT(ended[0].value, ended[0].threshold);
  EXPECT_FALSE(ended[0].joined.has_value());
}

TEST(CalibratedDetector, GradientFirstAndLossLaterAreOneIncidentWithTheLead) {
  SignalRun run;
  run.healthy(200);
  run.step(8, 1);
  run.step(12, 1);
  run.step(20, 1.5);
  run.step(9, 2.6);
  run.healthy(50);
  const std::vector<Incident> ended = run.finish();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].kind, kGradSpike);
  EXPECT_EQ(ended[0].start_step, 201u);
  EXPECT_EQ(ended[0].peak_step, 203u);
  EXPECT_EQ(ended[0].severity, Severity::kCritical);
  ASSERT_TRUE(ended[0].joined.has_value());
  EXPECT_EQ(ended[0].joined->signal, kLossSignal);
  EXPECT_EQ(ended[0].joined->start_step, 203u);
  EXPECT_EQ(ended[0].joined->peak_step, 204u);
}

TEST(CalibratedDetector, TheRollingMeanRuleAloneIsInformationInARunWhoseNormIsWild) {
  // A heavy tail: such a norm is nothing new here, yet above three times the mean.
  std::mt19937_64 random(5);
  std::student_t_distribution<double> tail(3);
  DefaultDetector detector({});
  std::vector<Finding> findings;
  for (std::uint64_t i = 1; i <= 3000; ++i) {
    detector.observe({.step = i, .grad_norm = std::exp(0.5 * tail(random))}, findings);
  }
  detector.finish(findings);
  int info = 0;
  int more = 0;
  for (const Finding& finding : findings) {
    if (finding.change != Change::kEnd || finding.incident.kind != kGradSpike) continue;
    ++(finding.incident.severity == Severity::kInfo ? info : more);
  }
  EXPECT_GT(info, 10);
  EXPECT_LT(more, info / 2);
}

TEST(CalibratedDetector, RunsWithoutAGradNormOrWithGapsAreJudgedByWhatTheyHave) {
  SignalRun run;
  for (int i = 0; i < 300; ++i) {
    run.step(i % 7 == 0 ? std::optional<double>(1) : std::nullopt,
             i % 5 == 4 ? std::nullopt : std::optional<double>(1));
  }
  run.step(std::nullopt, 1.4);
  const std::vector<Incident> ended = run.finish();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].kind, kLossSpike);
  EXPECT_EQ(ended[0].start_step, 301u);
}

TEST(CalibratedDetector, ALossThatIsNotFiniteIsCriticalAndOneIncident) {
  SignalRun run;
  run.healthy(50);
  for (int i = 0; i < 30; ++i) run.step(std::nullopt, kNan);
  const std::vector<Incident> ended = run.finish();
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].kind, kNonFinite);
  EXPECT_EQ(ended[0].signal, kLossSignal);
  EXPECT_EQ(ended[0].severity, Severity::kCritical);
  EXPECT_EQ(ended[0].start_step, 51u);
  EXPECT_EQ(ended[0].last_step, 80u);
}

TEST(CalibratedDetector, OverflowsThatOnlyALogCountsAreInformation) {
  DefaultDetector detector({});
  std::vector<Finding> findings;
  for (std::uint64_t i = 1; i <= 40; ++i) {
    detector.observe({.step = i, .loss = 2.0, .overflows = i == 5 ? 3u : 0u}, findings);
  }
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[1].incident.kind, kNonFinite);
  EXPECT_EQ(findings[1].incident.severity, Severity::kInfo);
  EXPECT_EQ(findings[1].incident.value, 3);
}

TEST(CalibratedDetector, ALossThatMovesForGoodIsReportedOnceAndThenIsNormal) {
  SignalRun run;
  run.healthy(300);
  for (int i = 0; i < 300; ++i) run.step(1, 1.5);
  const std::vector<Incident> ended = run.finish();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].kind, kLevelShift);
  EXPECT_EQ(ended[0].signal, kLossSignal);
  EXPECT_NEAR(ended[0].value, 4.5, 0.5);
  EXPECT_NEAR(ended[0].baseline, 3, 0.1);
  EXPECT_EQ(ended[1].kind, kLossSpike);
  EXPECT_EQ(ended[1].start_step, 301u);
  EXPECT_LT(ended[1].last_step, 345u);
}

}  // namespace
}  // namespace gradwarden::detect
