// What is normal for a signal is learnt from the signal: few false findings, few misses, no
// blindness.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/detect/calibrated_signal.h"
#include "daemon/detect/sorted_window.h"
#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {
namespace {

// Feeds values as a detector does: what exceeds its threshold is flagged.
struct Driven {
  explicit Driven(const SignalPrior& prior) : signal(prior) {}
  bool feed(double value) {
    score = signal.judge(value);
    new_level = signal.learn(score.exceeds());
    return score.exceeds();
  }
  CalibratedSignal signal;
  SignalScore score;
  bool new_level = false;
};

class LogNormal {
 public:
  explicit LogNormal(double sigma, unsigned seed = 7) : random_(seed), normal_(0, sigma) {}
  double next(double median = 1) { return median * std::exp(normal_(random_)); }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
};

TEST(CalibratedSignal, WhatWasLearntOfLogarithmsIsForgottenWhenTheSignalTurnsNegative) {
  std::mt19937_64 random(11);
  std::normal_distribution<double> noise(0, 50);
  Driven driven(loss_prior());
  int flagged = 0;
  // The likelihood of a flow, for example; 71 rows bring it to where the spread is not looked at in
  // every row.
  for (int i = 0; i < 71; ++i) flagged += driven.feed(5000 - 60.0 * i + noise(random)) ? 1 : 0;
  for (int i = 0; i < 100; ++i) flagged += driven.feed(-2000 + noise(random)) ? 1 : 0;
  EXPECT_EQ(flagged, 0);
}

TEST(SortedWindow, GivesTheQuantilesOfItsLastValues) {
  std::mt19937_64 random(3);
  SortedWindow<16> window;
  std::vector<double> all;
  for (int i = 0; i < 200; ++i) {
    all.push_back(static_cast<double>(random() % 50));
    window.push(all.back());
    std::vector<double> last(all.end() - std::min<std::ptrdiff_t>(16, std::ssize(all)), all.end());
    std::sort(last.begin(), last.end());
    const std::size_t n = last.size();
    EXPECT_EQ(window.median(), (last[n / 2] + last[(n - 1) / 2]) / 2);
    EXPECT_EQ(window.quantile(0.9), last[static_cast<std::size_t>(static_cast<double>(n) * 0.9)]);
    const double centre = window.median();
    for (double& value : last) value = std::fabs(value - centre);
    std::sort(last.begin(), last.end());
    EXPECT_EQ(window.median_distance(centre), last[n / 2]);
  }
}

TEST(CalibratedSignal, StationaryNormsGiveAtMostOneFalseFindingIn100000) {
  Driven norms(grad_norm_prior());
  LogNormal noise(0.25);
  int flagged = 0;
  for (int i = 0; i < 1'000'000; ++i) flagged += norms.feed(noise.next());
  EXPECT_LE(flagged, 10);
}

TEST(CalibratedSignal, StationaryLossesGiveAtMostOneFalseFindingIn100000) {
  Driven losses(loss_prior());
  LogNormal noise(0.02);
  int flagged = 0;
  for (int i = 0; i < 300'000; ++i) flagged += losses.feed(noise.next(3));
  EXPECT_LE(flagged, 3);
}

TEST(CalibratedSignal, ASpikeTenStepsAfterAMuchLargerOneIsFound) {
  Driven norms(grad_norm_prior());
  LogNormal noise(0.2);
  for (int i = 0; i < 500; ++i) norms.feed(noise.next());
  EXPECT_TRUE(norms.feed(50));
  for (int i = 0; i < 9; ++i) norms.feed(noise.next());
  EXPECT_TRUE(norms.feed(4)) << norms.score.score << " of " << norms.score.threshold;
}

TEST(CalibratedSignal, ValuesThatAreNotFiniteChangeNothing) {
  Driven with(loss_prior());
  Driven without(loss_prior());
  LogNormal noise(0.02);
  for (int i = 0; i < 300; ++i) {
    const double value = noise.next();
    if (i % 7 == 0) {
      EXPECT_FALSE(with.feed(std::numeric_limits<double>::quiet_NaN()));
      EXPECT_FALSE(with.feed(std::numeric_limits<double>::infinity()));
    }
    EXPECT_EQ(with.feed(value), without.feed(value));
    EXPECT_EQ(with.score.score, without.score.score);
  }
}

TEST(CalibratedSignal, RecurringSpikesBecomeOrdinaryForThisRun) {
  Driven norms(grad_norm_prior());
  LogNormal noise(0.15);
  int early = 0;
  int late = 0;
  for (int i = 0; i < 20'000; ++i) {
    const bool spike = i % 100 == 99;  // of the same height, for ever
    const bool flagged = norms.feed(noise.next(spike ? 4 : 1));
    EXPECT_FALSE(flagged && !spike) << i;
    (i < 1000 ? early : late) += flagged;
  }
  EXPECT_GE(early, 3);
  EXPECT_LE(late, 20);  // of 190
}

TEST(CalibratedSignal, AFewRowsAreJudgedByThePrior) {
  Driven norms(grad_norm_prior());
  for (int i = 0; i < 8; ++i) EXPECT_FALSE(norms.feed(0.2 + 0.01 * (i % 3)));
  EXPECT_TRUE(norms.feed(2.4));
}

TEST(CalibratedSignal, ALastingNewLevelIsLearnt) {
  Driven norms(grad_norm_prior());
  LogNormal noise(0.1);
  for (int i = 0; i < 500; ++i) norms.feed(noise.next());
  int flagged = 0;
  int levels = 0;
  for (int i = 0; i < 200; ++i) {
    flagged += norms.feed(noise.next(5));
    levels += norms.new_level;
  }
  EXPECT_EQ(levels, 1);
  EXPECT_LE(flagged, 45);
  EXPECT_TRUE(norms.feed(25));
}

TEST(CalibratedSignal, NoiseThatGrowsOnBothSidesIsNoSpike) {
  Driven losses(loss_prior());
  LogNormal quiet(0.005, 1);
  LogNormal wild(0.3, 2);
  for (int i = 0; i < 600; ++i) losses.feed(quiet.next(3));
  int flagged = 0;
  for (int i = 0; i < 600; ++i) flagged += losses.feed(wild.next(3));
  EXPECT_LE(flagged, 20);
}

TEST(CalibratedSignal, ALossThatChangesItsSignIsScoredLinearly) {
  Driven losses(loss_prior());
  std::mt19937_64 random(5);
  std::normal_distribution<double> normal(0, 0.1);
  int flagged = 0;
  for (int i = 0; i < 2000; ++i) flagged += losses.feed(normal(random));
  EXPECT_EQ(flagged, 0);
  EXPECT_TRUE(losses.feed(3));
  EXPECT_NEAR(losses.score.baseline, 0, 0.1);
}

TEST(CalibratedSignal, ContinuesBitForBitFromItsSavedState) {
  Driven through(grad_norm_prior());
  LogNormal noise(0.3);
  for (int i = 0; i < 777; ++i) through.feed(noise.next(i % 50 == 0 ? 6 : 1));
  std::string state;
  StateWriter writer(state);
  through.signal.save(writer);
  Driven restored(grad_norm_prior());
  StateReader reader(state);
  ASSERT_TRUE(restored.signal.restore(reader) && reader.at_end());
  for (int i = 0; i < 500; ++i) {
    const double value = noise.next(i % 50 == 0 ? 6 : 1);
    EXPECT_EQ(through.feed(value), restored.feed(value));
    EXPECT_EQ(through.score.score, restored.score.score);
    EXPECT_EQ(through.score.threshold, restored.score.threshold);
  }
  for (std::size_t size = 0; size < state.size(); size += 97) {
    StateReader cut(std::string_view(state).substr(0, size));
    EXPECT_FALSE(Driven(grad_norm_prior()).signal.restore(cut));
  }
}

}  // namespace
}  // namespace gradwarden::detect
