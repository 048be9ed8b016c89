// From evidence to causes, each rule both ways, and a monitor that explains what it finds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>

#include "daemon/detect/kinds.h"
#include "daemon/detect/state_bytes.h"
#include "daemon/diagnose/causes.h"
#include "daemon/diagnose/diagnose.h"
#include "daemon/diagnose/monitor.h"

namespace gradwarden::diagnose {
namespace {

using detect::Incident;
using detect::Severity;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

Incident incident_of(std::string_view kind, std::uint64_t flagged = 1) {
  Incident incident;
  incident.kind = kind;
  incident.signal = kind == detect::kLossSpike ? detect::kLossSignal : detect::kGradNormSignal;
  incident.severity = Severity::kWarning;
  incident.start_step = incident.peak_step = 500;
  incident.last_step = 500 + flagged - 1;
  incident.flagged_steps = flagged;
  return incident;
}

void joined(Incident& incident, std::uint64_t lead) {
  incident.joined = {std::string(detect::kLossSignal), incident.start_step + lead,
                     incident.start_step + lead, 9, 3};
}

// Rows of a run with a constant learning rate, or with the one that `rate` gives.
void rows(Facts& facts, int count, double rate = 1e-3) {
  for (int i = 0; i < count; ++i)
    facts.observe({.step = 1, .grad_norm = 1.0, .learning_rate = rate});
}

TEST(Diagnose, ABatchThatSpikesAgainIsData) {
  Facts facts;
  rows(facts, 100);
  Incident first = incident_of(detect::kGradSpike);
  first.batch_ids = {"b7"};
  facts.note_incident(first);
  Incident again = incident_of(detect::kGradSpike, 5);
  again.peak_step = 900;
  again.batch_ids = {"b6", "b7"};
  const detect::Diagnosis found = diagnose(again, facts);
  EXPECT_EQ(found.cause, kData);
  EXPECT_GT(found.confidence, 0.8);
  EXPECT_THAT(found.evidence, Contains(HasSubstr("batch b7 spiked before, at step 500")));
  EXPECT_THAT(found.action, HasSubstr("b7"));
  again.batch_ids = {"b8"};
  EXPECT_EQ(diagnose(again, facts).cause, kUnknown);
}

TEST(Diagnose, ABatchThatSpikedInAnEarlierAttemptIsDataAlsoAtTheSameStep) {
  Facts facts;
  facts.remember({"b7", 500, "a1"});
  Incident again = incident_of(detect::kLossSpike, 5);
  again.batch_ids = {"b7"};
  EXPECT_EQ(diagnose(again, facts).cause, kData);
  EXPECT_THAT(diagnose(again, facts).evidence, Contains(HasSubstr("of attempt a1")));
}

TEST(Diagnose, OneShardThatAllSpikesAreOfIsDataUnlessItIsMostOfTheRun) {
  for (const bool only : {false, true}) {
    Facts facts;
    const std::string_view shards[] = {"s1/x", "s2/x", "s3/x", "s4/x"};
    for (int i = 0; i < 200; ++i) {
      facts.observe({.step = 1, .grad_norm = 1.0, .batch_ids = {&shards[only ? 0 : i % 4], 1}});
    }
    Incident incident = incident_of(detect::kGradSpike, 5);
    for (int i = 0; i < 3; ++i) {
      incident.peak_step = 10 + i;
      incident.batch_ids = {"s1/" + std::to_string(i)};
      facts.note_incident(incident);
    }
    EXPECT_EQ(facts.spiking_shard(), only ? "" : "s1/");
    incident.batch_ids = {"s1/new"};
    EXPECT_EQ(diagnose(incident, facts).cause, only ? kUnknown : kData);
  }
}

TEST(Diagnose, ASpikeOfLossAndGradientThatIsOverAtOnceIsDataAndALastingOneIsNot) {
  Facts facts;
  rows(facts, 100);
  Incident incident = incident_of(detect::kGradSpike, 1);
  joined(incident, 0);
  EXPECT_EQ(diagnose(incident, facts).cause, kData);
  incident.flagged_steps = 40;
  EXPECT_NE(diagnose(incident, facts).cause, kData);
}

TEST(Diagnose, ASharpRiseOfTheRateJustBeforeIsTheLearningRate) {
  Facts facts;
  rows(facts, 100, 1e-3);
  rows(facts, 5, 4e-3);
  EXPECT_EQ(diagnose(incident_of(detect::kGradSpike, 4), facts).cause, kLearningRate);
  rows(facts, 300, 4e-3);
  EXPECT_EQ(diagnose(incident_of(detect::kGradSpike, 4), facts).cause, kUnknown);
}

TEST(Diagnose, ASpikeAtTheEndOfTheWarmUpThatLastsIsTheLearningRate) {
  Facts facts;
  for (int i = 1; i <= 100; ++i) rows(facts, 1, 1e-5 * i);
  rows(facts, 5, 1e-3);
  Incident incident = incident_of(detect::kGradSpike, 10);
  joined(incident, 3);
  const detect::Diagnosis found = diagnose(incident, facts);
  EXPECT_EQ(found.cause, kLearningRate);
  EXPECT_GT(found.confidence, 0.6);
  EXPECT_THAT(found.evidence, Contains(HasSubstr("3 steps before the loss")));
}

TEST(Diagnose, ManySpikesOfDifferentBatchesAreNotTheBatches) {
  Facts facts;
  Incident incident = incident_of(detect::kGradSpike, 1);
  joined(incident, 0);
  for (int i = 0; i < 8; ++i) {
    rows(facts, 10);
    incident.batch_ids = {std::to_string(i)};
    facts.note_incident(incident);
  }
  EXPECT_EQ(diagnose(incident, facts).cause, kLearningRate);
}

TEST(Diagnose, AnIllRankInTheSameStepIsHardwareAndOneLongAgoIsNot) {
  Facts facts;
  rows(facts, 100);
  Incident outlier = incident_of(detect::kRankOutlier);
  outlier.rank = 3;
  facts.note_incident(outlier);
  EXPECT_EQ(diagnose(outlier, facts).cause, kHardware);
  EXPECT_THAT(diagnose(outlier, facts).action, HasSubstr("rank 3"));
  EXPECT_EQ(diagnose(incident_of(detect::kGradSpike), facts).cause, kHardware);
  rows(facts, 50);
  EXPECT_NE(diagnose(incident_of(detect::kGradSpike), facts).cause, kHardware);
}

Incident outlier_of(std::uint32_t rank, std::uint64_t step) {
  Incident outlier = incident_of(detect::kRankOutlier);
  outlier.start_step = outlier.peak_step = outlier.last_step = step;
  outlier.rank = rank;
  return outlier;
}

TEST(Diagnose, ARankIsNotIllForTheFirstTimeOnlyIfItWasBefore) {
  constexpr char kAgain[] = "it is not the first time for this rank";
  Facts facts;
  rows(facts, 100);
  const auto begins = [&](const Incident& incident) {  // as the monitor does it
    facts.note_incident(incident);
    return diagnose(incident, facts).evidence;
  };
  EXPECT_THAT(begins(outlier_of(3, 500)), Not(Contains(kAgain)));
  EXPECT_THAT(begins(outlier_of(5, 600)), Not(Contains(kAgain))) << "it was another rank";
  EXPECT_THAT(begins(outlier_of(3, 700)), Contains(kAgain)) << "though rank 5 was the last one";
  EXPECT_THAT(begins(outlier_of(3, 800)), Contains(kAgain));
}

TEST(Diagnose, IllRanksAreSavedAndAStateFromBeforeTheyWereIsTakenOver) {
  Facts facts;
  rows(facts, 100);
  std::string older;
  detect::StateWriter writer(older);
  facts.save(writer);
  older.resize(older.size() - sizeof(std::uint32_t));  // which says that there are none
  detect::StateReader reader(older);
  Facts restored;
  ASSERT_TRUE(restored.restore(reader));
  EXPECT_TRUE(reader.at_end());
  EXPECT_EQ(restored.rows(), 100u);
  restored.note_incident(outlier_of(3, 500));

  std::string bytes;
  detect::StateWriter out(bytes);
  restored.save(out);
  detect::StateReader in(bytes);
  Facts again;
  ASSERT_TRUE(again.restore(in));
  EXPECT_TRUE(in.at_end());
  EXPECT_TRUE(again.ill_before(3, 501));
  EXPECT_FALSE(again.ill_before(3, 500));
  EXPECT_FALSE(again.ill_before(5, 501));
}

TEST(Diagnose, ReplicasThatDifferAreHardwareUnlessRoundingExplainsIt) {
  Incident desync = incident_of(detect::kReplicaDesync);
  desync.severity = Severity::kCritical;
  EXPECT_EQ(diagnose(desync, {}).cause, kHardware);
  desync.severity = Severity::kInfo;
  EXPECT_EQ(diagnose(desync, {}).cause, kNumerics);
}

TEST(Diagnose, ANaNOutOfNothingIsNumericsAndOneAfterARiseIsTheLearningRate) {
  Facts facts;
  rows(facts, 100);
  Incident nan = incident_of(detect::kNonFinite);
  nan.tensor = "attention.scores";
  EXPECT_EQ(diagnose(nan, facts).cause, kNumerics);
  EXPECT_THAT(diagnose(nan, facts).action, HasSubstr("attention.scores"));
  facts.note_incident(incident_of(detect::kGradSpike));
  EXPECT_EQ(diagnose(nan, facts).cause, kLearningRate);
}

TEST(Diagnose, VanishingIsArchitectureWhereNormsShrinkWithDepthAndConfigurationElse) {
  const std::vector<std::string> names = {"l0", "l1", "l2", "l3", "head"};
  for (const bool steep : {true, false}) {
    Facts facts;
    std::vector<double> norms;
    for (int i = 0; i < 5; ++i) norms.push_back(steep ? 1e-9 * std::pow(10, i) : 1e-6);
    for (int i = 0; i < 100; ++i) {
      facts.observe({.step = 1, .grad_norm = 1e-5, .group_norms = norms, .group_names = names});
    }
    const detect::Diagnosis found = diagnose(incident_of(detect::kVanishing), facts);
    EXPECT_EQ(found.cause, steep ? kArchitecture : kConfiguration);
    if (steep) {
      EXPECT_THAT(found.evidence, Contains(HasSubstr("the largest is head")));
    }
  }
}

TEST(Diagnose, ThinEvidenceIsUnknownAndSaysWhatToReport) {
  Facts facts;
  facts.observe({.step = 1, .grad_norm = 1.0});
  const detect::Diagnosis found = diagnose(incident_of(detect::kGradSpike, 4), facts);
  EXPECT_EQ(found.cause, kUnknown);
  EXPECT_EQ(found.confidence, 0);
  for (const char* what : {"batch ids", "norms of groups", "local norms", "learning rate"}) {
    EXPECT_THAT(found.action, HasSubstr(what));
  }
}

TEST(Diagnose, EveryKindHasAnAction) {
  for (const std::string_view kind : detect::kAllKinds) {
    if (kind == detect::kRestart) continue;
    const detect::Diagnosis found = diagnose(incident_of(kind), {});
    EXPECT_FALSE(found.cause.empty()) << kind;
    EXPECT_FALSE(found.action.empty()) << kind;
    if (found.cause != kUnknown) {
      EXPECT_FALSE(found.evidence.empty()) << kind;
    }
  }
}

TEST(Diagnose, ASummaryTakesWhatMostSpeakForAndAdviceOnlyWhereNothingIsWorse) {
  std::vector<Incident> all(3, incident_of(detect::kGradSpike));
  all[0].diagnosis = {std::string(kData), 0.6, {}, {}};
  all[1].diagnosis = {std::string(kData), 0.6, {}, {}};
  all[2].diagnosis = {std::string(kLearningRate), 0.65, {}, {}};
  EXPECT_EQ(summarise(all).cause, kData);
  Incident advice = incident_of(detect::kClipRateHigh);
  advice.severity = Severity::kInfo;
  advice.diagnosis = {std::string(kConfiguration), 0.8, {}, {}};
  all.push_back(advice);
  EXPECT_EQ(summarise(all).cause, kData);
  EXPECT_EQ(summarise({advice}).cause, kConfiguration);
  EXPECT_EQ(summarise({}).cause, "");
}

TEST(Monitor, ExplainsWhatItFindsAndGoesOnFromSavedStateAsIfItHadNeverStopped) {
  std::mt19937_64 random(3);
  std::normal_distribution<double> noise;
  auto monitor = std::make_unique<Monitor>(detect::DetectorOptions{});
  auto restarted = std::make_unique<Monitor>(detect::DetectorOptions{});
  std::vector<detect::Finding> findings;
  std::vector<detect::Finding> other;
  const std::vector<std::string> names = {"a", "b", "c", "d"};
  for (std::uint64_t i = 1; i <= 900; ++i) {
    const std::string batch = "s/" + std::to_string(i % 200);
    const std::string_view id = batch;
    const bool bad = i % 200 == 150;
    const double scale = std::exp(0.1 * noise(random)) * (bad ? 20 : 1);
    const double norms[] = {scale, 0.5 * scale, 0.1 * scale, scale};
    const detect::Step step{.step = i,
                            .time_ns = i,
                            .grad_norm = 2 * scale,
                            .loss = 3 * std::exp(0.02 * noise(random)) * (bad ? 3 : 1),
                            .learning_rate = 1e-3 * std::min(1.0, static_cast<double>(i) / 50),
                            .batch_ids = {&id, 1},
                            .group_norms = norms,
                            .group_names = names};
    monitor->observe(step, findings);
    restarted->observe(step, other);
    if (i % 40 != 0 && !bad) continue;
    std::string bytes;
    restarted->save(bytes);
    restarted = std::make_unique<Monitor>(detect::DetectorOptions{});
    ASSERT_TRUE(restarted->restore(bytes).ok());
  }
  monitor->finish(findings);
  restarted->finish(other);
  std::string state;
  std::string other_state;
  monitor->save(state);
  restarted->save(other_state);
  EXPECT_EQ(state, other_state);
  ASSERT_EQ(findings.size(), other.size());
  int again = 0;
  for (std::size_t i = 0; i < findings.size(); ++i) {
    const detect::Diagnosis& diagnosis = findings[i].incident.diagnosis;
    EXPECT_EQ(diagnosis.cause, other[i].incident.diagnosis.cause);
    EXPECT_EQ(diagnosis.evidence, other[i].incident.diagnosis.evidence);
    if (findings[i].change != detect::Change::kEnd) continue;
    EXPECT_EQ(diagnosis.cause, kData);
    again += diagnosis.confidence > 0.8;
  }
  EXPECT_EQ(again, 3);
}

TEST(Monitor, TakesOverTheStateOfADetectorAloneAndRefusesDamage) {
  detect::DefaultDetector before({});
  std::vector<detect::Finding> findings;
  for (std::uint64_t i = 1; i <= 50; ++i) before.observe({.step = i, .grad_norm = 1.0}, findings);
  std::string bytes;
  before.save(bytes);
  Monitor after({});
  ASSERT_TRUE(after.restore(bytes).ok());
  EXPECT_EQ(after.judgement().rolling_mean, 1);
  bytes.clear();
  after.save(bytes);
  for (std::size_t size = 0; size < bytes.size(); size += 7) {
    EXPECT_FALSE(Monitor({}).restore(std::string_view(bytes).substr(0, size)).ok()) << size;
  }
}

}  // namespace
}  // namespace gradwarden::diagnose
