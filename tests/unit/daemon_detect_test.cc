// The detection rules on plain steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "daemon/detect/default_detector.h"
#include "daemon/detect/kinds.h"

namespace gradwarden::detect {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class Steps {
 public:
  explicit Steps(const DetectorOptions& options = {}) : detector(options) {}

  void norm(double value) { observe({.step = next_++, .grad_norm = value}); }
  void norms(int count, double value) {
    for (int i = 0; i < count; ++i) norm(value);
  }
  void non_finite(Step step = {}) {
    step.step = next_++;
    step.grad_norm = kNan;
    if (step.non_finite_count == 0) step.non_finite_count = 1;
    observe(step);
  }
  void observe(const Step& step) { EXPECT_TRUE(detector.observe(step, findings)); }

  // Incidents that ended or, after finish(), all.
  std::vector<Incident> ended() const {
    std::vector<Incident> out;
    for (const Finding& finding : findings) {
      if (finding.change == Change::kEnd) out.push_back(finding.incident);
    }
    return out;
  }
  std::uint64_t next() const { return next_; }

  DefaultDetector detector;
  std::vector<Finding> findings;

 private:
  std::uint64_t next_ = 1;
};

TEST(Detector, SaysNothingAboutQuietSteps) {
  Steps run;
  run.norms(500, 1.0);
  EXPECT_TRUE(run.findings.empty());
  EXPECT_DOUBLE_EQ(run.detector.judgement().rolling_mean, 1.0);
  EXPECT_DOUBLE_EQ(run.detector.judgement().threshold, 3.0);
}

TEST(Detector, JoinsConsecutiveSpikesIntoOneIncidentWithPeakAndEnd) {
  Steps run;
  run.norms(50, 1.0);
  for (const double norm : {5.0, 9.0, 4.0}) run.norm(norm);
  run.norms(19, 1.0);
  EXPECT_TRUE(run.ended().empty());
  run.norm(1.0);
  ASSERT_EQ(run.ended().size(), 1u);
  const Incident incident = run.ended()[0];
  EXPECT_EQ(incident.kind, kGradSpike);
  EXPECT_EQ(incident.start_step, 51u);
  EXPECT_EQ(incident.peak_step, 52u);
  EXPECT_EQ(incident.last_step, 53u);
  EXPECT_EQ(incident.value, 9.0);
  EXPECT_EQ(incident.baseline, 1.0);
  EXPECT_EQ(incident.threshold, 3.0);
  EXPECT_EQ(incident.flagged_steps, 3u);
  EXPECT_EQ(incident.severity, Severity::kWarning);
}

TEST(Detector, ASpikeShortlyAfterAnIncidentBelongsToIt) {
  Steps run;
  run.norms(50, 1.0);
  run.norm(5.0);
  run.norms(18, 1.0);
  run.norm(6.0);
  run.norms(20, 1.0);
  ASSERT_EQ(run.ended().size(), 1u);
  EXPECT_EQ(run.ended()[0].flagged_steps, 2u);
}

TEST(Detector, FindsASmallSpikeAfterALargeOne) {
  Steps run;
  run.norms(100, 1.0);
  run.norm(50.0);
  run.norms(20, 1.0);
  run.norm(4.0);
  run.norms(20, 1.0);
  ASSERT_EQ(run.ended().size(), 2u);
  EXPECT_EQ(run.ended()[1].value, 4.0);
  EXPECT_EQ(run.ended()[1].baseline, 1.0);
}

TEST(Detector, OneNaNChangesNothingForTheSpikeRule) {
  Steps with;
  Steps without;
  for (Steps* run : {&with, &without}) run->norms(50, 1.0);
  with.non_finite();
  for (Steps* run : {&with, &without}) {
    run->norms(30, 1.1);
    run->norm(7.0);
    run->norms(20, 1.1);
  }
  const Incident spike = without.ended().back();
  EXPECT_EQ(with.ended().back().value, spike.value);
  EXPECT_EQ(with.ended().back().baseline, spike.baseline);
}

TEST(Detector, ReportsALastingShiftOnceAndLearnsTheNewLevel) {
  Steps run;
  run.norms(100, 1.0);
  run.norms(200, 5.0);
  const std::vector<Incident> ended = run.ended();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].kind, kGradSpike);
  EXPECT_EQ(ended[1].kind, kLevelShift);
  EXPECT_EQ(ended[1].severity, Severity::kInfo);
  EXPECT_EQ(ended[1].baseline, 1.0);
  EXPECT_EQ(ended[1].value, 5.0);
  EXPECT_EQ(run.detector.judgement().rolling_mean, 5.0);
  EXPECT_NE(ended[0].key, ended[1].key);
}

TEST(Detector, NamesTensorElementAndTheRankThatBoreANaN) {
  Steps run;
  run.norms(30, 1.0);
  const NonFiniteOrigin origins[] = {{"a.weight", "a", 1, 5, false}, {"b.bias", "b", 2, 9, true}};
  run.non_finite({.non_finite_count = 4, .applied = false, .origins = origins});
  run.norms(20, 1.0);
  ASSERT_EQ(run.ended().size(), 1u);
  const Incident incident = run.ended()[0];
  EXPECT_EQ(incident.kind, kNonFinite);
  EXPECT_EQ(incident.tensor, "b.bias");  // seen before the reduction
  EXPECT_EQ(incident.rank, 2u);
  EXPECT_EQ(incident.element, 9u);
  EXPECT_TRUE(incident.born_locally);
  EXPECT_EQ(incident.value, 4);
  EXPECT_EQ(incident.severity, Severity::kWarning);
}

TEST(Detector, TheOnlyRankWithLocalNaNsIsNamedEvenWithoutATensor) {
  Steps run;
  run.non_finite({.birth_rank = 3});
  run.detector.finish(run.findings);
  ASSERT_EQ(run.ended().size(), 1u);
  EXPECT_EQ(run.ended()[0].rank, 3u);
  EXPECT_TRUE(run.ended()[0].born_locally);
}

TEST(Detector, AnAppliedNaNIsCriticalAndALossScaleOverflowIsInformation) {
  Steps run;
  run.non_finite({.loss_scale_overflow = true, .applied = false});
  run.non_finite({.applied = true});
  run.norms(20, 1.0);
  const std::vector<Incident> ended = run.ended();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].severity, Severity::kCritical);
  EXPECT_EQ(ended[1].severity, Severity::kInfo);
}

TEST(Detector, WhatAnotherRankKnowsNamesTheCulpritBeforeOrAfterRankZerosReport) {
  const NonFiniteOrigin origin{"w", "g", 5, 77, true};
  Steps before;
  before.norms(3, 1.0);
  before.detector.observe_origin(4, origin, before.findings);
  before.non_finite();
  Steps after;
  after.norms(3, 1.0);
  after.non_finite();
  after.detector.observe_origin(4, origin, after.findings);
  for (Steps* run : {&before, &after}) {
    run->detector.finish(run->findings);
    ASSERT_EQ(run->ended().size(), 1u);
    EXPECT_EQ(run->ended()[0].tensor, "w");
    EXPECT_EQ(run->ended()[0].rank, 5u);
  }
}

TEST(Detector, DoesNotJudgeAStepTwice) {
  Steps run;
  run.norms(50, 1.0);
  std::vector<Finding> findings;
  EXPECT_FALSE(run.detector.observe({.step = 50, .grad_norm = 100}, findings));
  EXPECT_FALSE(run.detector.observe({.step = 3, .grad_norm = 100}, findings));
  EXPECT_TRUE(findings.empty());
}

// Random steps with spikes, shifts and NaNs.
Step random_step(std::mt19937_64& random, std::uint64_t number) {
  std::lognormal_distribution<double> norm(0, 0.4);
  Step step{.step = number, .time_ns = number * 10, .grad_norm = norm(random)};
  if (number > 300) *step.grad_norm *= 6;
  if (random() % 17 == 0) *step.grad_norm *= 20;
  step.loss = 3 + 0.1 * norm(random);
  if (random() % 23 == 0) *step.loss *= 2;
  if (random() % 29 == 0) {
    step.grad_norm = kNan;
    step.non_finite_count = random() % 5;
    step.loss_scale_overflow = random() % 2 == 0;
  }
  return step;
}

bool same(const Finding& a, const Finding& b) {
  const Incident& x = a.incident;
  const Incident& y = b.incident;
  return a.change == b.change && x.key == y.key && x.revision == y.revision && x.kind == y.kind &&
         x.start_step == y.start_step && x.peak_step == y.peak_step && x.last_step == y.last_step &&
         x.value == y.value && x.baseline == y.baseline && x.threshold == y.threshold &&
         x.flagged_steps == y.flagged_steps && x.severity == y.severity;
}

TEST(Detector, ContinuesBitForBitFromSavedStateAtEveryStep) {
  std::mt19937_64 random(7);
  std::vector<Step> steps;
  for (std::uint64_t i = 1; i <= 600; ++i) steps.push_back(random_step(random, i));
  DefaultDetector straight({});
  auto restarted = std::make_unique<DefaultDetector>(DetectorOptions{});
  std::vector<Finding> expected;
  std::vector<Finding> found;
  for (const Step& step : steps) {
    straight.observe(step, expected);
    std::string bytes;
    restarted->save(bytes);
    restarted = std::make_unique<DefaultDetector>(DetectorOptions{});
    ASSERT_TRUE(restarted->restore(bytes).ok());
    restarted->observe(step, found);
  }
  std::string one;
  std::string other;
  straight.save(one);
  restarted->save(other);
  EXPECT_EQ(one, other);
  ASSERT_EQ(expected.size(), found.size());
  ASSERT_GT(expected.size(), 20u);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(same(expected[i], found[i])) << i;
}

TEST(Detector, RefusesStateThatIsDamagedOrOfOtherOptionsAndIsFreshAfterwards) {
  Steps run;
  run.norms(50, 1.0);
  run.norm(9.0);
  std::string bytes;
  run.detector.save(bytes);
  for (std::size_t size = 0; size < bytes.size(); size += 37) {
    DefaultDetector detector({});
    EXPECT_FALSE(detector.restore(std::string_view(bytes).substr(0, size)).ok()) << size;
    EXPECT_TRUE(detector.open_incidents().empty());
  }
  DetectorOptions other;
  other.spike.window = 50;
  DefaultDetector detector(other);
  EXPECT_FALSE(detector.restore(bytes).ok());
  EXPECT_EQ(detector.judgement().rolling_mean, 0);
}

}  // namespace
}  // namespace gradwarden::detect
