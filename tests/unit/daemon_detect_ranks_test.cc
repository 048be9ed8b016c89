// The rules that compare ranks: replicas that differ, and one rank that stands out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "daemon/detect/calibrated_detector.h"
#include "daemon/detect/default_detector.h"
#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

using ::testing::ElementsAre;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class Ranks : public ::testing::Test {
 protected:
  void step(Step step) {
    step.step = ++last_;
    step.time_ns = last_ * 10;
    step.grad_norm = 1;
    EXPECT_TRUE(detector_->observe(step, findings_));
  }
  void norms(const std::vector<double>& local) { step({.local_norms = local}); }
  void norms(int count, const std::vector<double>& local) {
    for (int i = 0; i < count; ++i) norms(local);
  }
  void audit(const std::vector<ReplicaMismatch>& mismatches) {
    step({.audited = true, .mismatches = mismatches});
  }
  void restart() {
    std::string bytes;
    detector_->save(bytes);
    detector_ = std::make_unique<DefaultDetector>(DetectorOptions{});
    ASSERT_TRUE(detector_->restore(bytes).ok());
  }
  std::vector<Incident> of(Change change) const {
    std::vector<Incident> out;
    for (const Finding& finding : findings_) {
      if (finding.change == change) out.push_back(finding.incident);
    }
    return out;
  }

  std::unique_ptr<DefaultDetector> detector_ = std::make_unique<DefaultDetector>(DetectorOptions{});
  std::vector<Finding> findings_;
  std::uint64_t last_ = 0;
};

// ---- replica_desync
// ---------------------------------------------------------------------------------

constexpr std::uint32_t kRanks[] = {2, 5};

ReplicaMismatch mismatch_of(bool identical) {
  return {.tensor = "fc.weight",
          .group = "fc",
          .signal = "parameter",
          .element = 128,
          .rank_count = 2,
          .ranks = kRanks,
          .declared_identical = identical};
}

TEST_F(Ranks, ReplicasDeclaredIdenticalThatDifferAreCriticalUntilAnAuditFindsNone) {
  audit({});
  audit({mismatch_of(true), mismatch_of(true)});
  for (int i = 0; i < 30; ++i) step({});  // steps without an audit say nothing about replicas
  EXPECT_EQ(detector_->open_incidents().size(), 1u);
  audit({mismatch_of(true)});
  audit({});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  ASSERT_EQ(of(Change::kEnd).size(), 1u);
  const Incident incident = of(Change::kEnd)[0];
  EXPECT_EQ(incident.kind, kReplicaDesync);
  EXPECT_EQ(incident.severity, Severity::kCritical);
  EXPECT_EQ(incident.signal, "parameter");
  EXPECT_EQ(incident.tensor, "fc.weight");
  EXPECT_EQ(incident.group, "fc");
  EXPECT_EQ(incident.element, 128u);
  EXPECT_THAT(incident.ranks, ElementsAre(2, 5));
  EXPECT_EQ(incident.rank_count, 2u);
  EXPECT_FALSE(incident.rank.has_value()) << "two ranks are concerned";
  EXPECT_EQ(incident.start_step, 2u);
  EXPECT_EQ(incident.last_step, 33u);
  EXPECT_EQ(incident.flagged_steps, 2u);
  EXPECT_EQ(incident.value, 2);
}

TEST_F(Ranks, ReplicasThatMayDifferByRoundingAreInformationAndHideNothing) {
  audit({mismatch_of(false)});
  audit({mismatch_of(false), mismatch_of(true)});
  const std::vector<Incident> begun = of(Change::kBegin);
  ASSERT_EQ(begun.size(), 2u);
  EXPECT_EQ(begun[0].severity, Severity::kInfo);
  EXPECT_EQ(begun[1].severity, Severity::kCritical);
  EXPECT_NE(begun[0].key, begun[1].key);
}

TEST_F(Ranks, ADesyncIsTheSameIncidentAfterARestartOfTheDaemon) {
  audit({mismatch_of(true)});
  restart();
  audit({mismatch_of(true)});
  audit({});
  ASSERT_EQ(of(Change::kEnd).size(), 1u);
  EXPECT_EQ(of(Change::kEnd)[0].key, of(Change::kBegin)[0].key);
  EXPECT_THAT(of(Change::kEnd)[0].ranks, ElementsAre(2, 5));
}

// ---- rank_outlier
// -----------------------------------------------------------------------------------

TEST_F(Ranks, OneRankFarFromAllOthersInTwoStepsIsAWarning) {
  norms(20, {1, 1.1, 0.9, 1});
  norms({1, 1.1, 5, 1});
  EXPECT_TRUE(findings_.empty()) << "once may be the batch";
  norms({1, 1.1, 6, 1});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  const Incident incident = of(Change::kBegin)[0];
  EXPECT_EQ(incident.kind, kRankOutlier);
  EXPECT_EQ(incident.severity, Severity::kWarning);
  EXPECT_EQ(incident.signal, kLocalNormAbove);
  EXPECT_EQ(incident.rank, 2u);
  EXPECT_EQ(incident.start_step, 21u);
  EXPECT_EQ(incident.peak_step, 22u);
  EXPECT_EQ(incident.flagged_steps, 2u);
  EXPECT_NEAR(incident.value, 6 / std::sqrt(1.1), 1e-12);
  EXPECT_NEAR(incident.baseline, std::sqrt(1.1), 1e-12);
  norms(20, {1, 1.1, 0.9, 1});
  ASSERT_EQ(of(Change::kEnd).size(), 1u);
  EXPECT_EQ(of(Change::kEnd)[0].last_step, 22u);
}

TEST_F(Ranks, OneStepIsEnoughWhereTheRankIsVeryFar) {
  norms({1, 1, 17});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  EXPECT_EQ(of(Change::kBegin)[0].value, 17);
  EXPECT_EQ(of(Change::kBegin)[0].flagged_steps, 1u);
}

TEST_F(Ranks, ARankWhoseGradientVanishesIsOneToo) {
  norms({1, 0.1, 1, 1.5});
  norms({1, 0.1, 1, 1.5});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  EXPECT_EQ(of(Change::kBegin)[0].signal, kLocalNormBelow);
  EXPECT_EQ(of(Change::kBegin)[0].value, 10);
  detector_ = std::make_unique<DefaultDetector>(DetectorOptions{});
  findings_.clear();
  norms({1, 0, 1});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  EXPECT_EQ(of(Change::kBegin)[0].rank, 1u);
}

TEST_F(Ranks, NothingIsSaidWhereTheRanksAreFarApartOrTooFew) {
  norms(5, {1, 100});          // no majority
  norms(5, {1, 1, 9, 9});      // two
  norms(5, {1, 1, 6, 9});      // the others are not together
  norms(5, {1, 8, 64, 512});   // a layout of different layers
  norms(5, {0, 0, 1});         // no median
  norms(5, {1, 1, 3.9});       // not far enough
  norms(5, {kNan, 1, 1, 50});  // another detector's
  norms(5, {});
  EXPECT_TRUE(findings_.empty());
}

TEST_F(Ranks, AnotherRankIsAnotherIncident) {
  norms({1, 1, 50, 1});
  norms({50, 1, 1, 1});
  EXPECT_EQ(of(Change::kEnd).size(), 1u);
  ASSERT_EQ(of(Change::kBegin).size(), 2u);
  EXPECT_EQ(of(Change::kBegin)[1].rank, 0u);
  EXPECT_EQ(of(Change::kBegin)[1].start_step, 2u);
}

TEST_F(Ranks, ASuspectIsRememberedOverARestartOfTheDaemon) {
  norms({1, 1, 5});
  restart();
  norms({1, 1, 5});
  ASSERT_EQ(of(Change::kBegin).size(), 1u);
  EXPECT_EQ(of(Change::kBegin)[0].start_step, 1u);
}

// The state of version 1 had neither rule, and its incidents named no ranks; version 2 had no
// calibrated signals, and its incidents named no rule and no joined signal. What follows the spike
// detector's open incident: the calibrated signals, two trackers and a count of the non-finite
// detector, then replicas and outlier.
TEST_F(Ranks, StateOfTheVersionsBeforeIsTakenOver) {
  DefaultDetector before({});
  CalibratedDetector signals;
  std::vector<Finding> findings;
  for (std::uint64_t i = 1; i <= 50; ++i) {
    const Step step{.step = i, .grad_norm = i == 50 ? 9.0 : 1.0};
    ASSERT_TRUE(before.observe(step, findings));
    signals.observe(step);
  }
  std::string bytes;
  before.save(bytes);
  std::string calibrated;
  StateWriter writer(calibrated);
  signals.save(writer);
  // What version 4 added has no incident of its own here.
  std::string newest;
  StateWriter tail(newest);
  GroupNorms().save(tail);
  RuleSet({}).save(tail);
  StallDetector({}).save(tail);
  bytes.resize(bytes.size() - newest.size());
  constexpr std::size_t kTracker = sizeof(std::uint32_t) + 1;
  constexpr std::size_t kRanks = 2 * kTracker + 1 + 4 + 8 + 8 + kTracker;
  constexpr std::size_t kNonFinite = 2 * kTracker + 4;
  constexpr std::size_t kRanksOfIncident = 8 + 4;
  const std::size_t added = 4 + kRollingMeanRule.size() + 1 + calibrated.size();
  for (const char version : {3, 2, 1}) {
    if (version == 2) bytes.erase(bytes.size() - kRanks - kNonFinite - added, added);
    if (version == 1) {
      bytes.resize(bytes.size() - kRanks);
      bytes.erase(bytes.size() - kNonFinite - kRanksOfIncident, kRanksOfIncident);
    }
    bytes[0] = version;
    DefaultDetector after({});
    ASSERT_TRUE(after.restore(bytes).ok()) << int{version};
    ASSERT_EQ(after.open_incidents().size(), 1u);
    EXPECT_EQ(after.open_incidents()[0].value, 9);
    EXPECT_EQ(after.judgement().threshold, 3);
  }
  bytes[0] = 99;
  EXPECT_FALSE(DefaultDetector({}).restore(bytes).ok());
}

}  // namespace
}  // namespace gradwarden::detect
