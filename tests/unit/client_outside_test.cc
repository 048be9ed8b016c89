// Gradients that the caller reads and scales, as those on a device without a guard of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "kernels/cpu/scale.h"
#include "kernels/cpu/statistics.h"

namespace gradwarden {
namespace {

// One rank's gradients and what a device would do with them.
struct Outside {
  std::vector<std::vector<float>> gradients;
  double norm_type = 2;

  std::vector<StretchStatistics> read(const std::vector<Stretch>& stretches) {
    kernels::ParallelFor alone(1);
    kernels::StatisticsKernel kernel(alone);
    std::vector<StretchStatistics> found;
    for (const Stretch& stretch : stretches) {
      const kernels::ConstTensor tensor{gradients[stretch.shard].data() + stretch.begin,
                                        stretch.count, kernels::DType::kFloat32};
      kernels::Statistics s;
      kernel.plan({&tensor, 1});
      kernel.run({&tensor, 1}, norm_type, {&s, 1});
      found.push_back(
          {s.power_sum, s.max_abs, s.nan_count, s.inf_count, s.zero_count, s.first_non_finite});
    }
    return found;
  }

  void scale(const std::vector<Stretch>& stretches, const std::vector<StretchScaling>& to_do) {
    kernels::ParallelFor alone(1);
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      const kernels::Tensor tensor{gradients[stretches[i].shard].data() + stretches[i].begin,
                                   stretches[i].count, kernels::DType::kFloat32};
      const kernels::Scaling scaling{to_do[i].factor, to_do[i].limit};
      kernels::scale({&tensor, 1}, {&scaling, 1}, alone);
    }
  }

  StepOutcome step(Guard& guard, const StepInput& input = {}) {
    const std::vector<Stretch> stretches = guard.stretches();
    std::vector<StretchScaling> to_do(stretches.size(), {7, 7});
    const StepOutcome outcome = guard.step(input, read(stretches), to_do);
    scale(stretches, to_do);
    return outcome;
  }
};

// Memory that nobody may touch: the guard gets its address alone.
void* const kElsewhere = reinterpret_cast<void*>(16);

std::vector<TensorShard> shards_of(const std::vector<std::vector<float>>& gradients, bool outside) {
  std::vector<TensorShard> shards;
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    TensorShard& shard = shards.emplace_back();
    shard.name = std::string("t").append(std::to_string(i));
    shard.data = outside ? kElsewhere : const_cast<float*>(gradients[i].data());
    shard.count = gradients[i].size();
  }
  return shards;
}

GuardOptions clipping() {
  GuardOptions options;
  options.max_norm = 1;
  options.group_rules = {{.pattern = "t1", .max_norm = 0.1, .value_limit = 0.05}};
  options.audit_every = 1;
  return options;
}

TEST(OutsideGradients, AreDecidedAndScaledAsThoseInHostMemory) {
  Outside mine{{{3, -4, 0}, {0.5F, 0.25F}, {}}};
  auto expected = mine.gradients;
  SingleRank rank;
  Guard inside(clipping(), rank);
  Guard outside(clipping(), rank);
  inside.bind(shards_of(expected, false));
  outside.bind(shards_of(mine.gradients, true));
  for (int step = 0; step < 3; ++step) {
    const StepOutcome a = inside.step({.loss_scale = 2.0});
    const StepOutcome b = mine.step(outside, {.loss_scale = 2.0});
    EXPECT_EQ(a.decision, b.decision);
    EXPECT_EQ(a.grad_norm, b.grad_norm);
    EXPECT_EQ(a.clip_coefficient, b.clip_coefficient);
    EXPECT_EQ(a.clipped_groups, b.clipped_groups);
    EXPECT_EQ(expected, mine.gradients);
  }
}

TEST(OutsideGradients, ThatAreNotFiniteAreSkippedAndLeftAlone) {
  Outside mine{{{1, NAN}, {2}}};
  SingleRank rank;
  Guard guard(clipping(), rank);
  guard.bind(shards_of(mine.gradients, true));
  const StepOutcome outcome = mine.step(guard);
  EXPECT_EQ(outcome.decision, Decision::kSkip);
  EXPECT_EQ(outcome.reason, Reason::kNonFinite);
  EXPECT_EQ(mine.gradients[0][0], 1);
  EXPECT_EQ(mine.gradients[1][0], 2);
}

// Rank 0 holds elements [0, 4) of six, rank 1 [2, 6): the middle ones count half on each.
TEST(OutsideGradients, AreReadInStretchesWhereOtherRanksHoldPartOfThem) {
  ThreadRanks ranks(2);
  std::vector<double> norms(2);
  std::vector<std::size_t> stretches(2);
  std::vector<std::vector<float>> left(2);
  const auto run = [&](int rank) {
    Outside mine{{{1, 1, 1, 1}}};
    GuardOptions options;
    options.max_norm = 1;
    options.audit_every = 1;
    Guard guard(options, ranks.rank(rank));
    std::vector<TensorShard> shards = shards_of(mine.gradients, true);
    shards[0].total_count = 6;
    shards[0].offset = rank == 0 ? 0 : 2;
    guard.bind(shards);
    stretches[rank] = guard.stretches().size();
    norms[rank] = mine.step(guard).grad_norm;
    left[rank] = mine.gradients[0];
  };
  std::thread other(run, 1);
  run(0);
  other.join();
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(stretches[rank], 2U);
    EXPECT_DOUBLE_EQ(norms[rank], std::sqrt(6.0));
    for (const float g : left[rank]) EXPECT_NEAR(g, 1 / std::sqrt(6.0), 1e-6);
  }
}

TEST(OutsideGradients, RefuseOtherNumbersOfEntriesAndListsThatTheHostWouldRead) {
  Outside mine{{{3, 4}, {1}}};
  SingleRank rank;
  Guard guard({}, rank);
  std::vector<StretchStatistics> found(2);
  std::vector<StretchScaling> to_do(2);
  EXPECT_THROW(guard.step({}, found, to_do), Error);  // before bind
  const std::vector<TensorShard> shards = shards_of(mine.gradients, true);
  guard.bind(shards, shards);
  EXPECT_THROW(guard.step({}, {found.data(), 1}, to_do), Error);
  EXPECT_THROW(guard.step({}, found, {to_do.data(), 1}), Error);
  EXPECT_THROW(guard.observe_local({found.data(), 1}), Error);
  EXPECT_EQ(guard.step({}, found, to_do).decision, Decision::kApply);
  const std::vector<TensorShard> readable = shards_of(mine.gradients, false);
  guard.bind({readable, {}, readable, {}});
  EXPECT_THROW(guard.step({}, found, to_do), Error);
}

}  // namespace
}  // namespace gradwarden
