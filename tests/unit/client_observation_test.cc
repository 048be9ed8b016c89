// What the guard observes beside the reduced gradients: other tensors, local gradients every n-th
// step, and the noise scale they give.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/shards.h"

namespace gradwarden {
namespace {

using test::error_of;
using test::whole;
using testing::ElementsAre;
using testing::HasSubstr;

struct ObservingSink final : StepSink {
  void begin(const RunShape& s) override { shape = s; }
  void submit(const StepRecord& record) noexcept override {
    noise = record.gradient_noise_scale;
    if (!record.local_norms.empty()) local_steps.push_back(record.step);
    if (record.signals.empty()) return;
    signal_steps.push_back(record.step);
    signals.assign(record.signals.begin(), record.signals.end());
    group_norms.assign(record.signal_group_norms.begin(), record.signal_group_norms.end());
  }
  RunShape shape;
  std::optional<double> noise;
  std::vector<std::uint64_t> local_steps;
  std::vector<std::uint64_t> signal_steps;
  std::vector<SignalStatistics> signals;
  std::vector<double> group_norms;
};

TEST(OtherTensors, AreSignalsOfTheirOwnByGroupEveryNthStep) {
  SingleRank ranks;
  ObservingSink sink;
  std::vector<float> ga = {1}, gb = {1};
  std::vector<float> wa = {3, 4}, wb = {12};
  ga.resize(2);
  std::vector<float> ua = {0, 0.5F};
  Guard guard({.observe_others_every = 4}, ranks, &sink);
  const std::vector<TensorShard> updates = {whole("a", "first", ua)};
  const TensorList others[] = {{"update", updates}};
  guard.bind({.gradients = std::vector{whole("a", "first", ga), whole("b", "second", gb)},
              .parameters = std::vector{whole("a", "first", wa), whole("b", "second", wb)},
              .others = others});
  for (std::uint64_t step = 1; step <= 9; ++step) {
    if (step == 8) ua[1] = std::numeric_limits<float>::infinity();
    guard.step({.step = step});
  }
  EXPECT_THAT(sink.shape.signals, ElementsAre("parameter", "update"));
  EXPECT_THAT(sink.signal_steps, ElementsAre(4, 8));
  ASSERT_EQ(sink.signals.size(), 2U);
  EXPECT_DOUBLE_EQ(sink.signals[0].norm, 13);
  EXPECT_DOUBLE_EQ(sink.signals[0].max_abs, 12);
  EXPECT_EQ(sink.signals[0].element_count, 3U);
  EXPECT_EQ(sink.signals[1].inf_count, 1U);
  EXPECT_EQ(sink.signals[1].zero_count, 1U);
  EXPECT_EQ(sink.signals[1].element_count, 2U);
  EXPECT_THAT(sink.group_norms, ElementsAre(5, 12, 0, 0));
  EXPECT_EQ(wa, (std::vector<float>{3, 4}));
}

TEST(OtherTensors, CountEachElementOnceHoweverTheyAreShardedAndReplicated) {
  std::vector<ObservingSink> sinks(4);
  test::on_ranks(4, [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    std::vector<float> g(8, 1.0F);                                // replicated on all
    std::vector<float> moment(4, static_cast<float>(r / 2 + 1));  // halves, each on two ranks
    TensorShard cut = whole("w", "", moment);
    cut.total_count = 8;
    cut.offset = 4 * (r / 2);
    const std::vector<TensorShard> moments = {cut};
    const TensorList others[] = {{"exp_avg", moments}};
    Guard guard({.observe_others_every = 1}, ranks, &sinks[r]);
    guard.bind({.gradients = std::vector{whole("w", "", g)}, .others = others});
    guard.step({.step = 1});
  });
  for (const ObservingSink& sink : sinks) {
    ASSERT_EQ(sink.signals.size(), 1U);
    EXPECT_DOUBLE_EQ(sink.signals[0].norm, std::sqrt(4 * 1 + 4 * 4));
  }
}

TEST(OtherTensors, BadListsAreErrorsOnEveryRank) {
  test::on_ranks(2, [](Collective& ranks) {
    std::vector<float> g(2), w(3);
    const std::vector<TensorShard> gradients = {whole("w", "", g)};
    const std::vector<TensorShard> stranger = {whole("v", "", g)};
    const std::vector<TensorShard> longer = {whole("w", "", w)};
    Guard guard({}, ranks);
    EXPECT_THAT(error_of([&] { guard.bind({.gradients = gradients, .parameters = stranger}); }),
                HasSubstr("parameter: tensor \"v\" is not among the shards"));
    EXPECT_THAT(error_of([&] { guard.bind({.gradients = gradients, .parameters = longer}); }),
                HasSubstr("has 3 elements, its shards say 2"));
    const TensorList twice[] = {{"update", gradients}, {"update", gradients}};
    EXPECT_THAT(error_of([&] { guard.bind({.gradients = gradients, .others = twice}); }),
                HasSubstr("two lists are called \"update\""));
    const TensorList one[] = {{ranks.rank() == 0 ? "update" : "moment", gradients}};
    EXPECT_THAT(error_of([&] { guard.bind({.gradients = gradients, .others = one}); }),
                HasSubstr("rank 0 declares the lists \"gradient\" \"parameter\" \"update\""));
    guard.bind({.gradients = gradients});
    EXPECT_EQ(guard.step({.step = 1}).grad_norm, 0);
  });
}

TEST(LocalGradients, AreReadInEveryNthStepOnly) {
  SingleRank ranks;
  ObservingSink sink;
  std::vector<float> g = {1}, local = {2};
  Guard guard({.local_every = 3}, ranks, &sink);
  guard.bind(std::vector{whole("w", "", g)}, std::vector{whole("w", "", local)});
  for (std::uint64_t step = 0; step < 8; ++step) {
    guard.observe_local();
    guard.step({.step = step});
  }
  EXPECT_THAT(sink.local_steps, ElementsAre(0, 3, 6));
}

TEST(LocalGradients, MayHoldEmptyTensorsAndBoxes) {
  SingleRank ranks;
  ObservingSink sink;
  std::vector<float> g = {1, 2, 3, 4, 5, 6};
  TensorShard empty;
  empty.name = "empty";
  const TensorShard gone = box_shard("w", "", {2, 3}, {2, 0}, {0, 3}, nullptr, DType::kFloat32);
  const TensorShard all = box_shard("w", "", {2, 3}, {0, 0}, {2, 3}, g.data(), DType::kFloat32);
  Guard guard({}, ranks, &sink);
  guard.bind(std::vector{all, empty}, std::vector{empty, gone, all});
  guard.observe_local();
  guard.step({.step = 1});
  EXPECT_EQ(sink.local_steps.size(), 1U);
}

// Local gradients are a fixed one plus noise: the noise scale is tr(S) / |G|^2.
TEST(NoiseScale, IsTheVarianceBetweenRanksOverTheSquareOfTheMeanGradient) {
  constexpr std::size_t kRanks = 8;
  constexpr std::size_t kSize = 400;
  constexpr double kSigma = 2;
  std::vector<ObservingSink> sinks(kRanks);
  std::vector<std::vector<float>> locals(kRanks, std::vector<float>(kSize));
  std::mt19937_64 random(11);
  std::normal_distribution<double> normal;
  std::vector<double> gradient(kSize);
  double square = 0;
  for (double& v : gradient) {
    v = normal(random);
    square += v * v;
  }
  std::vector<std::vector<std::vector<float>>> steps(200);
  for (auto& step : steps) {
    step = locals;
    for (auto& of_rank : step) {
      for (std::size_t i = 0; i < kSize; ++i) {
        of_rank[i] = static_cast<float>(gradient[i] + kSigma * normal(random));
      }
    }
  }
  test::on_ranks(kRanks, [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    std::vector<float> local(kSize), mean(kSize);
    Guard guard({}, ranks, &sinks[r]);
    guard.bind(std::vector{whole("w", "", mean)}, std::vector{whole("w", "", local)});
    for (std::size_t s = 0; s < steps.size(); ++s) {
      local = steps[s][r];
      for (std::size_t i = 0; i < kSize; ++i) {
        double sum = 0;
        for (const auto& of_rank : steps[s]) sum += static_cast<double>(of_rank[i]);
        mean[i] = static_cast<float>(sum / kRanks);
      }
      guard.observe_local();
      guard.step({.step = s});
    }
  });
  const double expected = kSize * kSigma * kSigma / square;
  ASSERT_TRUE(sinks[0].noise.has_value());
  EXPECT_NEAR(*sinks[0].noise, expected, 0.1 * expected);
}

TEST(NoiseScale, IsLeftOutWhereLocalGradientsDoNotCoverTheModel) {
  std::vector<ObservingSink> sinks(2);
  test::on_ranks(2, [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    std::vector<float> a = {1}, b = {1};
    Guard guard({}, ranks, &sinks[r]);
    guard.bind(std::vector{whole("a", "", a), whole("b", "", b)}, std::vector{whole("a", "", a)});
    for (std::uint64_t step = 0; step < 50; ++step) {
      guard.observe_local();
      guard.step({.step = step});
    }
  });
  EXPECT_EQ(sinks[0].local_steps.size(), 50U);
  EXPECT_FALSE(sinks[0].noise.has_value());
}

}  // namespace
}  // namespace gradwarden
