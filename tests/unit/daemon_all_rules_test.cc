// All rules together: switched off, on chaos, on norms that stay as they are.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/rule_run.h"

namespace gradwarden::detect {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(RuleSet, ARuleThatIsOffSaysNothingAndItsSavedStateIsPassedOver) {
  DetectorOptions options;
  options.off = {"vanishing"};
  RuleRun run(options);
  run.healthy(200, 1e-7);
  EXPECT_TRUE(run.of(kVanishing).empty());
  DefaultDetector with({});
  std::string bytes;
  with.save(bytes);
  EXPECT_TRUE(DefaultDetector(options).restore(bytes).ok());
}

// Anything a report may hold.
Step chaos(std::mt19937_64& random, std::uint64_t number, std::vector<double>& groups,
           std::vector<double>& ranks) {
  std::normal_distribution<double> noise;
  std::uniform_real_distribution<double> chance;
  const auto value = [&]() -> std::optional<double> {
    const double c = chance(random);
    if (c < 0.05) return std::nullopt;
    if (c < 0.07) return kNan;
    if (c < 0.08) return std::numeric_limits<double>::infinity();
    if (c < 0.1) return 0.0;
    return std::exp(noise(random) * (c < 0.2 ? 12 : 0.3));
  };
  Step step{.step = number, .time_ns = number * kSecond};
  step.grad_norm = value();
  step.loss = value();
  if (step.loss && chance(random) < 0.01) step.loss = -*step.loss;
  step.learning_rate = value();
  step.loss_scale = value();
  step.update_norm = value();
  if (chance(random) < 0.7) step.clipped = chance(random) < 0.4;
  step.overflows = chance(random) < 0.1 ? 2 : 0;
  for (double& group : groups) group = value().value_or(-1);
  for (double& rank : ranks) rank = value().value_or(0);
  step.group_norms = groups;
  step.group_names = kGroups;
  step.local_norms = ranks;
  return step;
}

TEST(AllRules, OnChaosEveryIncidentBeginsOnceEndsOnceAndIsInOrderAlsoAcrossRestarts) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    std::mt19937_64 random(seed);
    std::vector<double> groups(3);
    std::vector<double> ranks(4);
    DetectorOptions options;
    options.clip_rate.never_after = 500;
    auto detector = std::make_unique<DefaultDetector>(options);
    std::vector<Finding> findings;
    std::uint64_t number = 0;
    for (int i = 0; i < 1500; ++i) {
      number += 1 + random() % 3;
      detector->observe(chaos(random, number, groups, ranks), findings);
      if (random() % 50 != 0) continue;
      std::string bytes;
      detector->save(bytes);
      detector = std::make_unique<DefaultDetector>(options);
      ASSERT_TRUE(detector->restore(bytes).ok()) << "seed " << seed;
      std::string again;
      detector->save(again);
      ASSERT_EQ(bytes, again) << "seed " << seed;
    }
    detector->finish(findings);
    EXPECT_TRUE(detector->open_incidents().empty());
    std::map<std::uint64_t, std::uint32_t> revisions;
    std::map<std::uint64_t, bool> ended;
    for (const Finding& finding : findings) {
      const Incident& incident = finding.incident;
      EXPECT_EQ(incident.revision, ++revisions[incident.key]) << incident.kind;
      EXPECT_EQ(finding.change == Change::kBegin, incident.revision == 1) << incident.kind;
      EXPECT_FALSE(ended[incident.key]);
      ended[incident.key] = incident.ended;
      EXPECT_LE(incident.start_step, incident.peak_step) << incident.kind;
      EXPECT_LE(incident.peak_step, incident.last_step) << incident.kind;
    }
    for (const auto& [key, over] : ended) EXPECT_TRUE(over) << "seed " << seed << " key " << key;
  }
}

// Goal 20: at most one false warning per 100,000 steps, from all rules together.
TEST(AllRules, AMillionStationaryStepsGiveAtMostTenWarnings) {
  std::mt19937_64 random(20);
  std::normal_distribution<double> noise;
  DefaultDetector detector({});
  std::vector<Finding> findings;
  std::vector<double> groups(3);
  int warnings = 0;
  for (std::uint64_t i = 1; i <= 1'000'000; ++i) {
    Step step{.step = i, .time_ns = i * kSecond};
    step.grad_norm = std::exp(0.25 * noise(random));
    step.loss = 3 * std::exp(0.02 * noise(random));
    step.update_norm = std::exp(0.25 * noise(random));
    step.clipped = *step.grad_norm > 1;
    for (double& group : groups) group = std::exp(0.25 * noise(random));
    step.group_norms = groups;
    step.group_names = kGroups;
    detector.observe(step, findings);
    for (const Finding& finding : findings) {
      const bool fresh = finding.change == Change::kBegin;
      warnings += fresh && finding.incident.severity != Severity::kInfo;
    }
    findings.clear();
  }
  EXPECT_LE(warnings, 10);
}

}  // namespace
}  // namespace gradwarden::detect
