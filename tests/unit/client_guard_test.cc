#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"

namespace gradwarden {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TensorShard whole(const char* name, std::vector<float>& values) {
  return {name, "", values.data(), values.size(), DType::kFloat32, 0, 0};
}

// Keeps what the guard reports.
struct RecordingSink : StepSink {
  void begin(const RunShape& s) override { shape = s; }
  void submit(const StepRecord& record) noexcept override {
    norms.push_back(record.grad_norm);
    reasons.push_back(record.reason);
    findings.assign(record.non_finite.begin(), record.non_finite.end());
    local_norms.assign(record.local_norms.begin(), record.local_norms.end());
    group_norms.assign(record.group_norms.begin(), record.group_norms.end());
    shard_norms.assign(record.shard_norms.begin(), record.shard_norms.end());
  }
  RunShape shape;
  std::vector<double> norms;
  std::vector<Reason> reasons;
  std::vector<NonFiniteTensor> findings;
  std::vector<double> local_norms;
  std::vector<double> group_norms;
  std::vector<double> shard_norms;
};

std::string bind_error(int size, const std::function<void(Guard&, int)>& bind,
                       const GuardOptions& options = {}) {
  std::mutex mutex;
  std::vector<std::string> errors;
  test::on_ranks(size, [&](Collective& ranks) {
    Guard guard(options, ranks);
    std::string error;
    try {
      bind(guard, ranks.rank());
    } catch (const Error& e) {
      error = e.what();
    }
    const std::lock_guard lock(mutex);
    errors.push_back(error);
  });
  for (const std::string& error : errors) EXPECT_EQ(error, errors[0]) << "alike on every rank";
  return errors[0];
}

TEST(Guard, ClipsToMaxNormAndReportsThePreClipNorm) {
  SingleRank ranks;
  std::vector<float> g = {3, 4};
  Guard guard({.max_norm = 1.0}, ranks);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  const StepOutcome outcome = guard.step({.step = 1});
  EXPECT_EQ(outcome.decision, Decision::kClip);
  EXPECT_EQ(outcome.reason, Reason::kMaxNorm);
  EXPECT_DOUBLE_EQ(outcome.grad_norm, 5.0);
  EXPECT_DOUBLE_EQ(outcome.clip_coefficient, 1.0 / (5.0 + 1e-6));
  EXPECT_FLOAT_EQ(g[0], 0.6F);
  EXPECT_FLOAT_EQ(g[1], 0.8F);
}

TEST(Guard, LeavesGradientsBitIdenticalOnASkippedStepNanIncluded) {
  SingleRank ranks;
  std::vector<float> g = {1, kNan, std::numeric_limits<float>::infinity(), -0.0F};
  const std::vector<float> before = g;
  Guard guard({.max_norm = 0.1}, ranks);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  const StepOutcome outcome = guard.step({.step = 1, .loss_scale = 1024.0});
  EXPECT_EQ(outcome.decision, Decision::kSkip);
  EXPECT_FALSE(outcome.should_update());
  EXPECT_EQ(std::memcmp(g.data(), before.data(), g.size() * sizeof(float)), 0);
}

TEST(Guard, FoldsTheLossScaleIntoThePassThatClips) {
  SingleRank ranks;
  std::vector<float> g = {3 * 512, 4 * 512};
  Guard guard({.max_norm = 10.0}, ranks);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  const StepOutcome outcome = guard.step({.step = 1, .loss_scale = 512.0});
  EXPECT_EQ(outcome.decision, Decision::kApply);
  EXPECT_DOUBLE_EQ(outcome.grad_norm, 5.0);
  EXPECT_EQ(g[0], 3.0F);
  EXPECT_EQ(g[1], 4.0F);
}

TEST(Guard, ShadowModeDecidesAndReportsButChangesNothing) {
  SingleRank ranks;
  std::vector<float> g = {30, 40};
  RecordingSink sink;
  Guard guard({.max_norm = 1.0, .skip_above = 10, .shadow = true}, ranks, &sink);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  const StepOutcome outcome = guard.step({.step = 1});
  EXPECT_EQ(outcome.decision, Decision::kSkip);
  EXPECT_TRUE(outcome.should_update());
  EXPECT_EQ(g[0], 30.0F);
  EXPECT_EQ(sink.reasons.at(0), Reason::kAbsoluteLimit);
}

TEST(Guard, SkipsASpikeOverTheRollingMeanAndFindsTheNextOneToo) {
  SingleRank ranks;
  std::vector<float> g = {1};
  Guard guard({.skip_above_rolling_mean = 3.0}, ranks);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  const auto step_with = [&](float norm) {
    g[0] = norm;
    return guard.step({}).reason;
  };
  for (int i = 0; i < 50; ++i) ASSERT_EQ(step_with(1.0F), Reason::kWithinLimits);
  EXPECT_EQ(step_with(50.0F), Reason::kRollingMean);
  EXPECT_EQ(step_with(kNan), Reason::kNonFinite);
  for (int i = 0; i < 9; ++i) ASSERT_EQ(step_with(1.0F), Reason::kWithinLimits);
  EXPECT_EQ(step_with(4.0F), Reason::kRollingMean) << "neither the 50 nor the NaN hides it";
}

TEST(Guard, RankZeroNamesEveryTensorOfItsOwnThatIsNotFiniteOnce) {
  SingleRank ranks;
  std::vector<float> a = {1, kNan};
  std::vector<float> b = {1, 2};
  std::vector<float> c = {kNan, kNan, std::numeric_limits<float>::infinity()};
  RecordingSink sink;
  Guard guard({}, ranks, &sink);
  guard.bind(std::vector{whole("a", a), whole("b", b), whole("c", c)});
  guard.step({});
  ASSERT_EQ(sink.findings.size(), 2U);
  EXPECT_EQ(sink.findings[0].tensor, 0U);
  EXPECT_EQ(sink.findings[0].index, 1U);
  EXPECT_EQ(sink.findings[1].tensor, 2U);
  EXPECT_EQ(sink.findings[1].nan_count, 2U);
  EXPECT_EQ(sink.findings[1].inf_count, 1U);
}

TEST(Guard, NamesTensorRankAndElementOfANanAndWhereItWasBorn) {
  RecordingSink sink;
  test::on_ranks(4, [&](Collective& ranks) {
    // Two tensors of 8 elements, reduced gradients split in shards of 4; local gradients whole.
    std::vector<float> local(16, 1.0F);
    std::vector<float> shard(4, 1.0F);
    if (ranks.rank() == 2) local[8 + 5] = kNan;  // b[5], before the reduction
    if (ranks.rank() == 3) shard[1] = kNan;      // b[5], after it
    const FlatTensor tensors[] = {{"a", "first", 8}, {"b", "second", 8}};
    const auto shards = flat_shards(tensors, static_cast<std::uint64_t>(ranks.rank()) * 4, 4,
                                    shard.data(), DType::kFloat32);
    const auto locals = flat_shards(tensors, 0, 16, local.data(), DType::kFloat32);
    Guard guard({}, ranks, ranks.rank() == 0 ? &sink : nullptr);
    guard.bind(shards, locals);
    guard.observe_local();
    EXPECT_EQ(guard.step({.step = 1}).reason, Reason::kNonFinite);
  });
  ASSERT_EQ(sink.findings.size(), 2U);
  EXPECT_EQ(sink.shape.tensors.at(sink.findings[0].tensor), "b");
  EXPECT_EQ(sink.findings[0].rank, 2U);
  EXPECT_EQ(sink.findings[0].index, 5U);
  EXPECT_TRUE(sink.findings[0].local);
  EXPECT_EQ(sink.findings[1].rank, 3U);
  EXPECT_EQ(sink.findings[1].index, 5U);
  EXPECT_FALSE(sink.findings[1].local);
  EXPECT_EQ(sink.local_norms.size(), 4U);
  EXPECT_DOUBLE_EQ(sink.local_norms[0], 4.0);
}

TEST(Guard, CountsReplicatedElementsOnceAndSplitsShardsThatOverlapPartly) {
  RecordingSink sink;
  test::on_ranks(3, [&](Collective& ranks) {
    std::vector<float> g(10, 1.0F);
    // Rank 0 holds all 10 elements, rank 1 elements 0..4, rank 2 elements 3..9.
    const std::uint64_t offset[] = {0, 0, 3};
    const std::uint64_t count[] = {10, 5, 7};
    const auto r = static_cast<std::size_t>(ranks.rank());
    const TensorShard shards[] = {{"w", "", g.data(), count[r], DType::kFloat32, 10, offset[r]}};
    Guard guard({}, ranks, ranks.rank() == 0 ? &sink : nullptr);
    guard.bind(shards);
    EXPECT_NEAR(guard.step({}).grad_norm, std::sqrt(10.0), 1e-12);
  });
  EXPECT_NEAR(sink.group_norms.at(0), std::sqrt(10.0), 1e-12);
  EXPECT_NEAR(sink.shard_norms.at(1), std::sqrt(5.0), 1e-12);
}

TEST(Guard, AgreesOnAStepEvenIfOnlyOneRankSeesTheNan) {
  std::atomic<int> skips{0};
  test::on_ranks(4, [&](Collective& ranks) {
    std::vector<float> g = {ranks.rank() == 3 ? kNan : 1.0F};
    const std::string name = "w" + std::to_string(ranks.rank());
    const TensorShard shards[] = {whole(name.c_str(), g)};
    Guard guard({}, ranks);
    guard.bind(shards);
    if (guard.step({}).decision == Decision::kSkip) ++skips;
  });
  EXPECT_EQ(skips, 4);
}

TEST(Guard, ReportsAFailedExchangeAndDoesNotUpdate) {
  bool works = true;
  CallbackCollective ranks(0, 1, [&](const void* send, void* receive, std::size_t bytes) {
    std::memcpy(receive, send, bytes);
    return works;
  });
  std::vector<float> g = {3, 4};
  Guard guard({.max_norm = 1.0}, ranks);
  const TensorShard shards[] = {whole("w", g)};
  guard.bind(shards);
  works = false;
  const StepOutcome outcome = guard.step({});
  EXPECT_EQ(outcome.reason, Reason::kCollectiveFailed);
  EXPECT_FALSE(outcome.should_update());
  EXPECT_EQ(g[0], 3.0F);
}

TEST(GuardBind, ASinkThatThrowsOnOneRankIsAnErrorOnAll) {
  struct Throwing : RecordingSink {
    void begin(const RunShape& s) override {
      if (s.rank == 1) throw Error("the history file cannot be written");
    }
  };
  test::on_ranks(3, [&](Collective& ranks) {
    std::vector<float> g(4);
    Throwing sink;
    Guard guard({}, ranks, &sink);
    try {
      guard.bind(std::vector{whole("w", g)});
      ADD_FAILURE() << "no error on rank " << ranks.rank();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("history file"), std::string::npos);
    }
  });
}

TEST(GuardBind, SaysWhichElementsAreOnNoRank) {
  std::vector<float> g(10);
  const std::string error = bind_error(2, [&](Guard& guard, int rank) {
    const TensorShard shards[] = {{"w", "", g.data(), 4, DType::kFloat32, 10, rank == 0 ? 0U : 6U}};
    guard.bind(shards);
  });
  EXPECT_NE(error.find("elements 4 to 5 of tensor \"w\" are on no rank"), std::string::npos)
      << error;
}

TEST(GuardBind, NamesBothRanksWhenTheyDeclareATensorDifferently) {
  std::vector<float> g(4);
  const std::string dtype = bind_error(3, [&](Guard& guard, int rank) {
    const TensorShard shards[] = {
        {"w", "", g.data(), 4, rank == 2 ? DType::kBFloat16 : DType::kFloat32, 0, 0}};
    guard.bind(shards);
  });
  EXPECT_NE(dtype.find("\"w\" has dtype float32 on rank 0 and bfloat16 on rank 2"),
            std::string::npos)
      << dtype;
  const std::string group = bind_error(2, [&](Guard& guard, int rank) {
    const TensorShard shards[] = {{"w", rank == 0 ? "a" : "b", g.data(), 4, DType::kFloat32, 0, 0}};
    guard.bind(shards);
  });
  EXPECT_NE(group.find("group a on rank 0 and b on rank 1"), std::string::npos) << group;
}

TEST(GuardBind, TellsEveryRankOfAMistakeThatOneRankMade) {
  std::vector<float> g(4);
  const std::string null_pointer = bind_error(3, [&](Guard& guard, int rank) {
    const TensorShard shards[] = {
        {"w", "", rank == 1 ? nullptr : g.data(), 4, DType::kFloat32, 0, 0}};
    guard.bind(shards);
  });
  EXPECT_NE(null_pointer.find("on rank 1"), std::string::npos) << null_pointer;
  EXPECT_NE(null_pointer.find("data is null"), std::string::npos) << null_pointer;
  const std::string unknown_local = bind_error(2, [&](Guard& guard, int rank) {
    const TensorShard shards[] = {{"w", "", g.data(), 4, DType::kFloat32, 0, 0}};
    const TensorShard local[] = {{rank == 1 ? "v" : "w", "", g.data(), 4, DType::kFloat32, 0, 0}};
    guard.bind(shards, local);
  });
  EXPECT_NE(unknown_local.find("on rank 1, local: tensor \"v\""), std::string::npos)
      << unknown_local;
}

TEST(GuardBind, RefusesOverlappingShardsUnknownDtypesAndShardsBeyondTheirTensor) {
  std::vector<float> g(8);
  const auto error_of = [&](std::vector<TensorShard> shards) {
    return bind_error(1, [&](Guard& guard, int) { guard.bind(shards); });
  };
  EXPECT_NE(error_of({{"w", "", g.data(), 4, DType::kFloat32, 6, 0},
                      {"w", "", g.data(), 4, DType::kFloat32, 6, 2}})
                .find("overlap at element 2"),
            std::string::npos);
  EXPECT_NE(error_of({{"w", "", g.data(), 4, static_cast<DType>(9), 0, 0}}).find("unknown dtype 9"),
            std::string::npos);
  EXPECT_NE(error_of({{"w", "", g.data(), 4, DType::kFloat32, 6, 3}}).find("beyond total_count 6"),
            std::string::npos);
  EXPECT_NE(error_of({{"", "", g.data(), 4, DType::kFloat32, 0, 0}}).find("empty name"),
            std::string::npos);
}

TEST(GuardBind, RefusesOptionsThatDifferBetweenRanks) {
  std::mutex mutex;
  std::vector<std::string> errors;
  std::vector<float> g(2);
  test::on_ranks(2, [&](Collective& ranks) {
    Guard guard({.max_norm = ranks.rank() == 0 ? 1.0 : 2.0}, ranks);
    const TensorShard shards[] = {whole("w", g)};
    try {
      guard.bind(shards);
    } catch (const Error& e) {
      const std::lock_guard lock(mutex);
      errors.emplace_back(e.what());
    }
  });
  ASSERT_EQ(errors.size(), 2U);
  EXPECT_NE(errors[0].find("options differ"), std::string::npos) << errors[0];
}

TEST(GuardOptions, NameTheValueAndWhatIsAllowed) {
  SingleRank ranks;
  const auto error_of = [&](const GuardOptions& options) -> std::string {
    try {
      Guard guard(options, ranks);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(error_of({.max_norm = -1}).find("max_norm is -1"), std::string::npos);
  EXPECT_NE(error_of({.max_norm = std::nan("")}).find("max_norm is nan"), std::string::npos);
  EXPECT_NE(error_of({.skip_above_rolling_mean = 0.5}).find("skip_above_rolling_mean is 0.5"),
            std::string::npos);
  EXPECT_NE(error_of({.window = 0}).find("window is 0"), std::string::npos);
  EXPECT_NE(error_of({.window = 10, .warmup = 11}).find("warmup is 11"), std::string::npos);
  EXPECT_NE(error_of({.level_shift_after = 1}).find("level_shift_after is 1"), std::string::npos);
  EXPECT_NE(error_of({.max_consecutive_skips = 0}).find("max_consecutive_skips is 0"),
            std::string::npos);
  EXPECT_EQ(error_of({}), "");
}

TEST(Guard, ThrowsOnAStepBeforeBind) {
  SingleRank ranks;
  Guard guard({}, ranks);
  EXPECT_THROW(guard.step({}), Error);
}

TEST(Guard, ACallWithinACallIsAnErrorAndTheStepGoesOn) {
  std::vector<float> g = {3, 4};
  Guard* guard = nullptr;
  std::string refused;
  bool stepping = false;
  CallbackCollective ranks(0, 1, [&](const void* send, void* receive, std::size_t bytes) {
    std::memcpy(receive, send, bytes);
    if (!stepping) return true;
    try {
      guard->bind(std::vector{whole("w", g)});
    } catch (const Error& error) {
      refused = error.what();
    }
    return true;
  });
  Guard made({.max_norm = 1}, ranks);
  guard = &made;
  made.bind(std::vector{whole("w", g)});
  stepping = true;
  EXPECT_DOUBLE_EQ(made.step({.step = 1}).grad_norm, 5);
  EXPECT_NE(refused.find("bind() while another call"), std::string::npos) << refused;
  stepping = false;
  made.bind(std::vector{whole("w", g)});
  EXPECT_NEAR(made.step({.step = 2}).grad_norm, 1, 1e-5);
}

}  // namespace
}  // namespace gradwarden
