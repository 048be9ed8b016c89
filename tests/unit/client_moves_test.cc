// Gradients, local gradients and parameters that move between steps.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "tests/unit/allocation_counter.h"
#include "tests/unit/ranks_harness.h"

namespace gradwarden {
namespace {

using testing::HasSubstr;
using Values = std::vector<float>;

TensorShard whole(const char* name, Values& values) {
  TensorShard shard;
  shard.name = name;
  shard.data = values.data();
  shard.count = values.size();
  return shard;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

struct LocalNorm : StepSink {
  void begin(const RunShape&) override {}
  void submit(const StepRecord& record) noexcept override {
    norm = record.local_norms.empty() ? -1 : record.local_norms[0];
    mismatches = record.mismatches.size();
  }
  double norm = 0;
  std::size_t mismatches = 0;
};

TEST(Moves, StepReadsAndScalesGradientsWhereTheyAreNowAndLeavesTheOldMemoryAlone) {
  SingleRank ranks;
  Values a = {3};
  Values b = {4};
  Guard guard({.max_norm = 1.0}, ranks);
  guard.bind(std::vector{whole("a", a), whole("b", b)});
  Values new_a = {6};
  Values new_b = {8};
  void* const moved[] = {new_a.data(), new_b.data()};
  guard.update_gradients(moved);
  EXPECT_DOUBLE_EQ(guard.step({}).grad_norm, 10.0);
  EXPECT_FLOAT_EQ(new_a[0], 0.6F);
  EXPECT_FLOAT_EQ(new_b[0], 0.8F);
  EXPECT_EQ(a[0], 3.0F);
  EXPECT_EQ(b[0], 4.0F);
}

TEST(Moves, EveryStretchOfAShardThatReplicasCutMovesWithIt) {
  test::on_ranks(2, [&](Collective& ranks) {
    // Rank 0 holds [0, 6), rank 1 [3, 9): rank 0's shard is read in two stretches.
    const bool first = ranks.rank() == 0;
    Values shard(6, 1.0F);
    TensorShard described = whole("w", shard);
    described.total_count = 9;
    described.offset = first ? 0 : 3;
    Guard guard({.max_norm = 1.5}, ranks);
    guard.bind(std::vector{described});
    EXPECT_DOUBLE_EQ(guard.step({.step = 0}).grad_norm, 3.0);
    Values now(6, 2.0F);
    void* const moved[] = {now.data()};
    guard.update_gradients(moved);
    EXPECT_DOUBLE_EQ(guard.step({.step = 1}).grad_norm, 6.0);
    for (const float value : now) EXPECT_NEAR(value, 0.5F, 1e-6F);
  });
}

TEST(Moves, LocalGradientsAndParametersAreReadWhereTheyAreNow) {
  SingleRank ranks;
  LocalNorm sink;
  Values g = {3, 4};
  Values w = {30, 40};
  Guard guard({.adaptive_clip = 0.01}, ranks, &sink);
  const std::vector<TensorShard> gradients = {whole("w", g)};
  const std::vector<TensorShard> parameters = {whole("w", w)};
  guard.bind({.gradients = gradients, .local = gradients, .parameters = parameters});
  Values local = {6, 8};
  Values larger = {300, 400};
  void* const moved_local[] = {local.data()};
  void* const moved_parameters[] = {larger.data()};
  guard.update_local(moved_local);
  guard.update_parameters(moved_parameters);
  guard.observe_local();
  guard.step({});
  EXPECT_DOUBLE_EQ(sink.norm, 10.0);
  EXPECT_NEAR(std::hypot(g[0], g[1]), 5.0, 1e-5);  // within a hundredth of 500
}

TEST(Moves, AnAuditComparesTheNewMemory) {
  LocalNorm sink;
  test::on_ranks(2, [&](Collective& ranks) {
    const bool first = ranks.rank() == 0;
    Values g = {1, 2};
    Values now = {1, first ? 2.0F : 2.5F};
    LocalNorm other;
    Guard guard({.audit_every = 1}, ranks, first ? &sink : &other);
    guard.bind(std::vector{whole("w", g)});
    guard.step({.step = 0});
    if (first) {
      EXPECT_EQ(sink.mismatches, 0U);
    }
    void* const moved[] = {now.data()};
    guard.update_gradients(moved);
    guard.step({.step = 1});
  });
  EXPECT_EQ(sink.mismatches, 1U);
}

TEST(Moves, MisuseIsAClearErrorAndChangesNothing) {
  SingleRank ranks;
  Values a = {3};
  Values b = {4};
  Values none;
  Values elsewhere = {100};
  Guard guard({}, ranks);
  void* const one[] = {elsewhere.data()};
  EXPECT_THAT(error_of([&] { guard.update_gradients(one); }), HasSubstr("before bind()"));
  guard.bind(std::vector{whole("a", a), whole("b", b), whole("none", none)});
  EXPECT_THAT(error_of([&] { guard.update_gradients(one); }),
              HasSubstr("update_gradients() with 1 addresses; bind() was given 3 shards"));
  void* const hole[] = {elsewhere.data(), nullptr, nullptr};
  EXPECT_THAT(error_of([&] { guard.update_gradients(hole); }), HasSubstr("null for tensor \"b\""));
  EXPECT_THAT(error_of([&] { guard.update_local(one); }), HasSubstr("bind() was given 0"));
  EXPECT_THAT(error_of([&] { guard.update_parameters(one); }), HasSubstr("bind() was given 0"));
  EXPECT_DOUBLE_EQ(guard.step({}).grad_norm, 5.0);
}

TEST(Moves, ANullPointerIsAllowedWhereThereAreNoElementsAndNothingIsAllocated) {
  SingleRank ranks;
  Values a = {3};
  Values none;
  Guard guard({}, ranks);
  guard.bind(std::vector{whole("a", a), whole("none", none)});
  Values now = {7};
  void* const moved[] = {now.data(), nullptr};
  const std::uint64_t before = test::allocations();
  guard.update_gradients(moved);
  guard.update_parameters({});
  guard.update_local({});
  EXPECT_EQ(test::allocations(), before);
  EXPECT_DOUBLE_EQ(guard.step({}).grad_norm, 7.0);
}

TEST(OptimizerScales, LeavesTheGradientsAndSaysByWhatToDivideThem) {
  SingleRank ranks;
  Values g = {3 * 512, 4 * 512};
  const Values before = g;
  Guard guard({.max_norm = 1.0}, ranks);
  guard.bind(std::vector{whole("w", g)});
  const StepOutcome outcome = guard.step({.loss_scale = 512.0, .optimizer_scales = true});
  EXPECT_EQ(outcome.decision, Decision::kClip);
  EXPECT_EQ(g, before);
  EXPECT_DOUBLE_EQ(outcome.grad_scale, 512.0 / outcome.clip_coefficient);
}

TEST(OptimizerScales, WhereOneFactorDoesNotSayItAllTheGradientsAreScaledHere) {
  SingleRank ranks;
  Values g = {30};
  Values h = {1};
  Guard guard({.group_rules = {{.pattern = "g", .max_norm = 3}}}, ranks);
  guard.bind(std::vector{whole("g", g), whole("h", h)});
  const StepOutcome outcome = guard.step({.optimizer_scales = true});
  EXPECT_EQ(outcome.grad_scale, 1.0);
  EXPECT_NEAR(g[0], 3.0F, 1e-5F);
  Guard clamping({.value_limit = 0.5}, ranks);
  clamping.bind(std::vector{whole("h", h)});
  EXPECT_EQ(clamping.step({.optimizer_scales = true}).grad_scale, 1.0);
  EXPECT_EQ(h[0], 0.5F);
}

TEST(OptimizerScales, ASkippedStepAsksForNothing) {
  SingleRank ranks;
  Values g = {30};
  Guard guard({.skip_above = 10}, ranks);
  guard.bind(std::vector{whole("g", g)});
  const StepOutcome outcome = guard.step({.loss_scale = 2.0, .optimizer_scales = true});
  EXPECT_FALSE(outcome.should_update());
  EXPECT_EQ(outcome.grad_scale, 1.0);
  EXPECT_EQ(g[0], 30.0F);
}

TEST(Unscaled, GradientsThatTheScalerDividedAreNotDividedAgainAndOverflowsStayItsBusiness) {
  SingleRank ranks;
  Values g = {3, 4};
  Guard guard({}, ranks);
  guard.bind(std::vector{whole("w", g)});
  EXPECT_DOUBLE_EQ(guard.step({.loss_scale = 512.0, .unscaled = true}).grad_norm, 5.0);
  EXPECT_EQ(g, (Values{3, 4}));
  g[0] = INFINITY;
  EXPECT_EQ(guard.step({.loss_scale = 512.0, .unscaled = true}).reason, Reason::kLossScaleOverflow);
}

}  // namespace
}  // namespace gradwarden
