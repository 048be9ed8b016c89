// The audit: replicas that disagree are found, bit for bit where they promise equal bits, and
// named by tensor, element and rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <mutex>
#include <random>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "gradwarden/mesh.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/shards.h"

namespace gradwarden {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct AuditSink final : StepSink {
  void begin(const RunShape& s) override { shape = s; }
  void submit(const StepRecord& record) noexcept override {
    if (record.audited_replicas != 0) audits.push_back(record.step);
    audited = record.audited_replicas;
    found.insert(found.end(), record.mismatches.begin(), record.mismatches.end());
  }
  RunShape shape;
  std::vector<std::uint64_t> audits;
  std::uint64_t audited = 0;
  std::vector<ReplicaMismatch> found;
};

std::vector<std::uint32_t> ranks_of(const ReplicaMismatch& m) {
  return {m.ranks.begin(), m.ranks.begin() + m.rank_count};
}

TensorShard whole(const char* name, std::vector<float>& values, bool identical = false) {
  TensorShard shard = test::whole(name, "", values);
  shard.identical = identical;
  return shard;
}

TEST(Audit, OneFlippedBitOfAParameterIsFoundInTheNextAuditAndNamed) {
  constexpr int kRanks = 4;
  std::vector<AuditSink> sinks(kRanks);
  test::on_ranks(kRanks, [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    std::vector<float> g(100, 0.5F);
    std::vector<float> w(100);
    for (std::size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i) + 1;
    Guard guard({.audit_every = 5}, ranks, &sinks[r]);
    guard.bind(
        {.gradients = std::vector{whole("w", g, true)}, .parameters = std::vector{whole("w", w)}});
    for (std::uint64_t step = 1; step <= 20; ++step) {
      if (step == 12 && r == 2) {  // the lowest bit of the smallest element
        std::uint32_t bits;
        std::memcpy(&bits, &w[0], 4);
        bits ^= 1;
        std::memcpy(&w[0], &bits, 4);
      }
      guard.step({.step = step});
    }
  });
  for (const AuditSink& sink : sinks) {  // every rank finds the same
    EXPECT_THAT(sink.audits, ElementsAre(5, 10, 15, 20));
    EXPECT_EQ(sink.shape.signals, std::vector<std::string>{"parameter"});
    ASSERT_EQ(sink.found.size(), 2U);  // steps 15 and 20
    const ReplicaMismatch& m = sink.found[0];
    EXPECT_EQ(sink.shape.tensors[m.tensor], "w");
    EXPECT_EQ(m.signal, 1U);
    EXPECT_EQ(m.index, 0U);
    EXPECT_EQ(m.count, 100U);
    EXPECT_TRUE(m.declared_identical);
    EXPECT_THAT(ranks_of(m), ElementsAre(2));
    EXPECT_LT(m.relative_difference, 1e-6);
  }
}

// What the audit of one step says of a gradient that each of three ranks has as `values[rank]`.
std::vector<ReplicaMismatch> audit_gradients(std::vector<std::vector<float>> values,
                                             bool identical) {
  AuditSink sink;
  test::on_ranks(static_cast<int>(values.size()), [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    AuditSink other;
    Guard guard({.audit_every = 1}, ranks, r == 0 ? &sink : &other);
    guard.bind(std::vector{whole("w", values[r], identical)});
    guard.step({.step = 1});
  });
  EXPECT_EQ(sink.audited, 1U);
  return sink.found;
}

TEST(Audit, EqualReplicasAreNotReported) {
  EXPECT_TRUE(audit_gradients({{1, 2}, {1, 2}, {1, 2}}, true).empty());
  const float nan = std::nanf("1");
  EXPECT_TRUE(audit_gradients({{nan, 2}, {nan, 2}, {nan, 2}}, true).empty());
}

TEST(Audit, SeesASignOfZeroAnExchangeOfElementsAndAnotherNan) {
  EXPECT_EQ(audit_gradients({{0.0F, 1}, {-0.0F, 1}, {0.0F, 1}}, true).size(), 1U);
  EXPECT_EQ(audit_gradients({{1, 2}, {2, 1}, {1, 2}}, true).size(), 1U);
  const auto found = audit_gradients({{std::nanf("1")}, {std::nanf("2")}, {std::nanf("1")}}, true);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_THAT(ranks_of(found[0]), ElementsAre(1));
}

TEST(Audit, ReplicasNotDeclaredIdenticalMayDifferWithinTheToleranceAndAreInformationBeyondIt) {
  EXPECT_TRUE(audit_gradients({{1, 1}, {1, 1.0001F}, {1, 1}}, false).empty());
  const auto found = audit_gradients({{1, 1}, {1, 1.1F}, {1, 1}}, false);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_FALSE(found[0].declared_identical);
  EXPECT_NEAR(found[0].relative_difference, 0.0486, 1e-3);
}

TEST(Audit, ComparesWhatRanksShareThoughEachCutsItsOwnWay) {
  // A [4, 6] tensor: rank 0 holds all of it, rank 1 columns 0 to 2, rank 2 columns 3 to 5, rank 3
  // the flat elements 6 to 17 (rows 1 and 2).
  std::vector<float> values(24);
  std::mt19937_64 random(3);
  for (float& v : values) v = static_cast<float>(random() % 1000);
  const std::vector<std::uint64_t> shape = {4, 6};
  for (const bool flip : {false, true}) {
    AuditSink sink;
    test::on_ranks(4, [&](Collective& ranks) {
      std::vector<float> mine;
      TensorShard shard;
      switch (ranks.rank()) {
        case 1:
        case 2:
          for (std::size_t row = 0; row < 4; ++row) {
            const auto first =
                values.begin() + static_cast<long>(row * 6) + (ranks.rank() == 1 ? 0 : 3);
            mine.insert(mine.end(), first, first + 3);
          }
          shard = box_shard("w", "", shape, {0, ranks.rank() == 1 ? 0U : 3U}, {4, 3}, nullptr,
                            DType::kFloat32);
          break;
        case 3:
          mine.assign(values.begin() + 6, values.begin() + 18);
          shard = box_shard("w", "", shape, {0, 0}, shape, nullptr, DType::kFloat32);
          shard.offset = 6;
          shard.count = 12;
          break;
        default:
          mine = values;
          shard = box_shard("w", "", shape, {0, 0}, shape, nullptr, DType::kFloat32);
      }
      shard.data = mine.data();
      shard.identical = true;
      if (flip && ranks.rank() == 2) mine[4] += 1;  // row 1, column 4: also on ranks 0 and 3
      AuditSink other;
      Guard guard({.audit_every = 1}, ranks, ranks.rank() == 0 ? &sink : &other);
      guard.bind(std::vector{shard});
      const double norm = guard.step({.step = 1}).grad_norm;
      if (!flip) {
        double expected = 0;
        for (const float v : values) expected += static_cast<double>(v) * v;
        EXPECT_NEAR(norm, std::sqrt(expected), 1e-9 * norm);
      }
    });
    EXPECT_EQ(sink.audited, 4U);  // {0,1}, {0,2}, {0,1,3}, {0,2,3}
    EXPECT_EQ(sink.found.size(), flip ? 1U : 0U);
    if (!flip) continue;
    EXPECT_THAT(ranks_of(sink.found[0]), ElementsAre(2));
    EXPECT_EQ(sink.found[0].index, 9U);  // row 1, column 3: where {0, 2, 3} begins
    EXPECT_EQ(sink.found[0].count, 6U);
  }
}

TEST(Audit, ChangesNoDecisionAndNoBitOfTheOutcome) {
  std::vector<StepOutcome> outcomes[2];
  for (const std::uint32_t every : {0U, 1U}) {
    test::on_ranks(2, [&](Collective& ranks) {
      std::vector<float> g = {3, 4};
      std::vector<float> w = {1, 1};
      Guard guard({.max_norm = 1, .audit_every = every, .observe_others_every = every}, ranks);
      guard.bind(
          {.gradients = std::vector{whole("w", g)}, .parameters = std::vector{whole("w", w)}});
      for (std::uint64_t step = 1; step <= 3; ++step) {
        const StepOutcome outcome = guard.step({.step = step});
        if (ranks.rank() == 0) outcomes[every].push_back(outcome);
      }
    });
  }
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(outcomes[0][i].grad_norm, outcomes[1][i].grad_norm);
    EXPECT_EQ(outcomes[0][i].clip_coefficient, outcomes[1][i].clip_coefficient);
  }
}

std::string bind_error(const std::function<void(int rank, TensorShard&)>& change) {
  std::string message;
  std::mutex mutex;
  std::size_t failed = 0;
  test::on_ranks(2, [&](Collective& ranks) {
    std::vector<float> g(6);
    TensorShard shard = box_shard("w", "", {2, 3}, {0, 0}, {2, 3}, g.data(), DType::kFloat32);
    change(ranks.rank(), shard);
    Guard guard({}, ranks);
    try {
      guard.bind(std::vector{shard});
    } catch (const Error& error) {
      const std::lock_guard lock(mutex);
      ++failed;
      message = error.what();
    }
  });
  EXPECT_EQ(failed, 2U) << "not on every rank";
  return message;
}

TEST(Audit, DeclarationsThatContradictEachOtherAreErrorsThatNameTensorAndRanks) {
  EXPECT_THAT(bind_error([](int rank, TensorShard& s) {
                if (rank == 1) s.shape = s.extent = {3, 2};
              }),
              HasSubstr("tensor \"w\" has shape [2, 3] on rank 0 and [3, 2] on rank 1"));
  EXPECT_THAT(bind_error([](int rank, TensorShard& s) { s.identical = rank == 1; }),
              HasSubstr("has identical not set on rank 0 and set on rank 1"));
  EXPECT_THAT(bind_error([](int rank, TensorShard& s) {
                if (rank == 1) s.dtype = DType::kFloat16;
              }),
              HasSubstr("dtype float32 on rank 0 and float16 on rank 1"));
  EXPECT_THAT(bind_error([](int, TensorShard& s) {
                s.extent = {2, 2};
                s.count = 4;
              }),
              HasSubstr("elements 2 to 2 of tensor \"w\" are on no rank"));
}

TEST(Audit, ReplicasThatCutAShardIntoTooManyStretchesAreAnErrorOnEveryRank) {
  constexpr std::uint64_t kRows = 200000;
  test::on_ranks(2, [](Collective& ranks) {
    std::vector<float> g(2 * kRows);
    const bool column = ranks.rank() == 1;
    Guard guard({}, ranks);
    std::string message;
    try {
      guard.bind(std::vector{box_shard("w", "", {kRows, 2}, {0, 0}, {kRows, column ? 1U : 2U},
                                       g.data(), DType::kFloat32)});
    } catch (const Error& error) {
      message = error.what();
    }
    EXPECT_THAT(message, HasSubstr("on rank 0, tensor \"w\": its replicas cut"));
  });
}

TEST(Audit, BoxesThatDoNotFitTheirShapeAreErrors) {
  const auto refused = [](const std::function<void(TensorShard&)>& change) {
    return bind_error([&](int rank, TensorShard& s) {
      if (rank == 1) change(s);
    });
  };
  EXPECT_THAT(refused([](TensorShard& s) {
                s.start = {1, 0};
              }),
              HasSubstr("on rank 1, shards: tensor \"w\": in dimension 0, start 1 + extent 2 is "
                        "beyond shape 2"));
  EXPECT_THAT(refused([](TensorShard& s) { s.start = {0}; }), HasSubstr("one entry per dimension"));
  EXPECT_THAT(refused([](TensorShard& s) { s.count = 7; }), HasSubstr("beyond the box's elements"));
  EXPECT_THAT(refused([](TensorShard& s) { s.total_count = 5; }), HasSubstr("product of shape"));
  EXPECT_THAT(refused([](TensorShard& s) { s.shape.clear(); }), HasSubstr("need a shape"));
  EXPECT_THAT(refused([](TensorShard& s) {
                s.shape.assign(9, 1);
                s.start.clear();
                s.extent.clear();
              }),
              HasSubstr("9 dimensions"));
  EXPECT_THAT(refused([](TensorShard& s) {
                s.shape = {1ULL << 40, 1ULL << 40};
                s.extent = {1, 1};
              }),
              HasSubstr("does not fit 64 bits"));
}

}  // namespace
}  // namespace gradwarden
