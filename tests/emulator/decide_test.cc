// Fold and decision on the emulated GPU against the host's rules, given the same statistics.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <random>
#include <vector>

#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::Launcher;
using emulator::Order;
using reference::Buffer;
using reference::Content;

// Tensors of all types and many sizes, dealt out to groups with some weights.
class Model {
 public:
  Model(std::size_t tensors, std::uint32_t groups, Content content, std::uint64_t seed = 7) {
    std::mt19937_64 random(seed);
    buffers_.reserve(tensors);
    for (std::size_t i = 0; i < tensors; ++i) {
      const std::size_t count = i % 11 == 3 ? 0 : i == 0 ? 40000 : 1 + random() % 50;
      buffers_.emplace_back(reference::kFormats[i % 4], count);
      reference::fill(buffers_.back(), content, random);
      const double weights[] = {1, 0.5, 0.25, 1.0 / 3};
      tensors_.push_back(
          {&buffers_[i], static_cast<std::uint32_t>(random() % groups), weights[random() % 4]});
    }
  }
  std::vector<TestTensor>& tensors() { return tensors_; }

 private:
  std::vector<Buffer> buffers_;
  std::vector<TestTensor> tensors_;
};

// The chunk sums of one tensor, folded by the host's rule.
Statistics host_tensor(const StepDevice& device, const TensorEntry& entry, std::uint64_t first) {
  Statistics whole;
  for (std::uint64_t c = 0; c < chunks_of(entry.count, entry.dtype); ++c) {
    const ChunkStatistics& chunk = device.chunks()[first + c];
    Statistics part{chunk.power_sum, chunk.max_abs,    chunk.nan_count,
                    chunk.inf_count, chunk.zero_count, kNoIndex};
    if (chunk.first_non_finite != ChunkStatistics::kNoElement) {
      part.first_non_finite = chunk.first_non_finite;
    }
    fold(whole, part, c * chunk_elements(entry.dtype));
  }
  return whole;
}

void expect_near_bits(double actual, double expected) {
  EXPECT_NEAR(actual, expected, 1e-13 * std::fabs(expected));
}

void check_fold(Model& model, std::uint32_t groups, unsigned grid, Order order) {
  Launcher launcher(order, reference::seed());
  StepDevice device(launcher, model.tensors(), groups);
  device.grid = grid;
  device.run_statistics();
  device.run_fold();
  expect_clean(launcher);
  std::vector<GroupSummary> expected(groups);
  double power_sum = 0;
  std::uint64_t non_finite = 0;
  std::uint64_t first_chunk = 0;
  std::uint64_t first_id = 0;
  for (std::uint32_t i = 0; i < model.tensors().size(); ++i) {
    const TensorEntry entry = entry_of(model.tensors()[i], i);
    const Statistics s = host_tensor(device, entry, first_chunk);
    first_chunk += chunks_of(entry.count, entry.dtype);
    expect_near_bits(device.tensors()[i].power_sum, s.power_sum);
    EXPECT_EQ(device.tensors()[i].first_non_finite, s.first_non_finite);
    GroupSummary& group = expected[entry.group];
    group.power_sum += s.power_sum * entry.weight;
    group.max_abs = std::max(group.max_abs, s.max_abs);
    group.nan_count += static_cast<double>(s.nan_count) * entry.weight;
    group.inf_count += static_cast<double>(s.inf_count) * entry.weight;
    group.zero_count += static_cast<double>(s.zero_count) * entry.weight;
    power_sum += s.power_sum;
    if (s.non_finite() && non_finite == 0) first_id = entry.id;
    non_finite += s.nan_count + s.inf_count;
  }
  for (std::uint32_t g = 0; g < groups; ++g) {
    expect_near_bits(device.group(g).power_sum, expected[g].power_sum);
    EXPECT_EQ(device.group(g).max_abs, expected[g].max_abs);
    expect_near_bits(device.group(g).nan_count, expected[g].nan_count);
    expect_near_bits(device.group(g).inf_count, expected[g].inf_count);
    expect_near_bits(device.group(g).zero_count, expected[g].zero_count);
  }
  expect_near_bits(device.header().shard_power_sum, power_sum);
  EXPECT_EQ(device.header().shard_non_finite, non_finite);
  EXPECT_EQ(device.header().shard_first.tensor, first_id);  // 0 where all is finite
}

TEST(FoldKernel, AgreesWithTheHostForFewManyAndLargeGroups) {
  Model some(60, 7, Content::kBroken);
  for (const Order order : kOrders) check_fold(some, 7, 5, order);
  Model clean(60, 60, Content::kGradient);
  check_fold(clean, 60, 2, Order::kShuffled);
  Model one_large(kWarpGroup + 1, 1, Content::kGradient);
  check_fold(one_large, 1, 40, Order::kShuffled);
}

// Two steps of each order and grid give one and the same summary.
void check_same_bits(Model& model, std::uint32_t groups, std::initializer_list<unsigned> grids) {
  std::vector<std::uint64_t> expected;
  for (const Order order : kOrders) {
    for (const unsigned grid : grids) {
      Launcher launcher(order, reference::seed());
      StepDevice device(launcher, model.tensors(), groups);
      device.grid = grid;
      device.run_statistics();
      device.run_fold();
      if (expected.empty()) expected = device.summary();
      EXPECT_EQ(device.summary(), expected);
      device.run_fold();  // the count of blocks is ready for the next step
      EXPECT_EQ(device.summary(), expected);
      expect_clean(launcher);
    }
  }
}

TEST(FoldKernel, GivesTheSameBitsForEveryGridAndOrderAndStepAfterStep) {
  Model small(40, 3, Content::kBroken);
  check_same_bits(small, 3, {1, 2, 7, 64});
  Model large(kWarpGroup + 30, 1, Content::kBroken);  // one group, folded by the whole block
  check_same_bits(large, 1, {7});
}

TEST(FoldKernel, KeepsLocalStatisticsApartAndUntilTheDecision) {
  Model model(20, 2, Content::kBroken);
  Launcher launcher;
  StepDevice device(launcher, model.tensors(), 2);
  const float loss_scale = 1024;
  device.loss_scale = &loss_scale;
  device.run_statistics();
  device.run_fold(TensorKind::kLocal);
  EXPECT_EQ(device.header().observed, 1U);
  EXPECT_EQ(device.header().shard_power_sum, 0);
  device.run_fold();
  EXPECT_EQ(device.header().local_power_sum, device.header().shard_power_sum);
  EXPECT_EQ(device.header().local_non_finite, device.header().shard_non_finite);
  EXPECT_EQ(device.header().local_first.index, device.header().shard_first.index);
  EXPECT_EQ(device.header().loss_scale, 1024);
  device.run_decide();
  EXPECT_EQ(device.header().observed, 0U);
  expect_clean(launcher);
}

TEST(FoldKernel, FoldsNoTensorsAtAll) {
  Launcher launcher;
  StepDevice device(launcher, {}, 1);
  device.run_statistics();
  device.run_fold();
  device.run_decide();
  expect_clean(launcher);
  EXPECT_EQ(device.result().norm, 0);
  EXPECT_EQ(device.result().found_inf, 0.0F);
}

// ---- decide ------------------------------------------------------------------------------------

// Summaries of several ranks with the given sum in each group.
struct Gathered {
  Gathered(std::uint32_t ranks, std::uint32_t groups) : groups(groups) {
    words.resize(ranks * summary_bytes(groups) / 8);
    for (std::uint32_t r = 0; r < ranks; ++r) new (header(r)) RankHeader();
  }
  RankHeader* header(std::uint32_t rank) {
    return const_cast<RankHeader*>(header_of(words.data(), rank, summary_bytes(groups)));
  }
  std::uint32_t groups;
  std::vector<std::uint64_t> words;
};

bool same_verdict(const StepVerdict& a, const StepVerdict& b) {
  return a.decision == b.decision && a.reason == b.reason && a.level_shift == b.level_shift &&
         a.stop_requested == b.stop_requested && a.clip_coefficient == b.clip_coefficient &&
         a.rolling_mean == b.rolling_mean && a.threshold == b.threshold;
}

TEST(DecideKernel, DecidesAndRemembersAsTheHostDoesOverHundredsOfSteps) {
  constexpr std::uint32_t kRanks = 3;
  constexpr std::uint32_t kGroups = 300;  // more than one tile
  std::mt19937_64 random(reference::seed());
  std::lognormal_distribution<double> noise(0, 0.3);
  Launcher launcher(Order::kShuffled, reference::seed());
  StepDevice device(launcher, {}, kGroups);
  device.policy.max_norm = 33;  // about the norm of an ordinary step
  device.policy.skip_above = 4000;
  device.policy.skip_above_rolling_mean = true;
  device.policy.max_consecutive_skips = 3;
  GuardState host;
  int decisions[5] = {};
  for (int step = 0; step < 300; ++step) {
    Gathered gathered(kRanks, kGroups);
    const double loss_scale = step % 2 == 0 ? 0 : 512;
    gathered.header(0)->loss_scale = loss_scale;
    const double factor = step % 37 == 36 ? 100 : step % 53 == 52 ? 1e6 : 1;
    double sums[kGroups] = {};
    double nan_count = 0;
    for (std::uint32_t r = 0; r < kRanks; ++r) {
      for (std::uint32_t g = 0; g < kGroups; ++g) {
        GroupSummary& s = groups_of(gathered.header(r))[g];
        s.power_sum = std::pow(noise(random) * factor * (loss_scale > 0 ? loss_scale : 1), 2);
        if (step % 41 == 40 && r == 1 && g == 299) s.nan_count = 0.5;
        sums[g] += s.power_sum;
        nan_count += s.nan_count;
      }
    }
    double power_sum = 0;
    for (const double sum : sums) power_sum += sum;
    StepStatistics statistics;
    statistics.norm = std::sqrt(power_sum) * (loss_scale > 0 ? 1.0 / loss_scale : 1.0);
    statistics.non_finite = nan_count > 0;
    statistics.dynamic_loss_scale = loss_scale > 0;
    const StepVerdict expected = decide(device.policy, host, statistics);
    device.run_decide(gathered.words.data(), kRanks);
    const StepResult& result = device.result();
    ASSERT_EQ(result.norm, statistics.norm) << step;
    ASSERT_TRUE(same_verdict(result.verdict, expected)) << step;
    ASSERT_EQ(result.nan_count, nan_count > 0 ? 1U : 0U);
    ASSERT_EQ(std::memcmp(&device.state, &host, sizeof host), 0) << step;
    const bool skip = expected.decision == Decision::kSkip;
    ASSERT_EQ(result.found_inf, skip ? 1.0F : 0.0F);
    ASSERT_EQ(result.update, skip ? 0U : 1U);
    const double scale = loss_scale > 0 ? loss_scale : 1;
    ASSERT_EQ(result.grad_scale, static_cast<float>(scale / expected.clip_coefficient));
    ASSERT_EQ(device.factors()[299].factor, expected.clip_coefficient / scale);
    ++decisions[static_cast<int>(expected.decision)];
  }
  expect_clean(launcher);
  EXPECT_GT(decisions[static_cast<int>(Decision::kApply)], 50);
  EXPECT_GT(decisions[static_cast<int>(Decision::kClip)], 3);
  EXPECT_GT(decisions[static_cast<int>(Decision::kSkip)], 3);
}

TEST(DecideKernel, ChangesNothingInShadowModeButReports) {
  Launcher launcher;
  StepDevice device(launcher, {}, 1);
  device.shadow = true;
  device.policy.skip_above = 1;
  Gathered gathered(1, 1);
  groups_of(gathered.header(0))[0].power_sum = 100;
  device.run_decide(gathered.words.data(), 1);
  expect_clean(launcher);
  EXPECT_EQ(device.result().verdict.decision, Decision::kSkip);
  EXPECT_EQ(device.result().found_inf, 0.0F);
  EXPECT_EQ(device.result().grad_scale, 1.0F);
  EXPECT_EQ(device.factors()[0].factor, 1.0);
}

TEST(DecideKernel, NeverLeavesAnInfiniteGradScale) {
  Launcher launcher;
  StepDevice device(launcher, {}, 1);
  device.policy.max_norm = 1e-5;
  Gathered gathered(1, 1);
  groups_of(gathered.header(0))[0].power_sum = 1e76;
  device.run_decide(gathered.words.data(), 1);
  expect_clean(launcher);
  EXPECT_EQ(device.result().grad_scale, std::numeric_limits<float>::max());
  const Float32Factor& parts = device.factors()[0].parts;
  EXPECT_NEAR(double{parts.first} * double{parts.second}, 1e-43, 1e-49);
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
