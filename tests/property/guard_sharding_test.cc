// The guard's norm over random shardings against the float64 norm of the unsharded model.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>
#include <random>

#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"

namespace gradwarden {
namespace {

// A model of whole float32 tensors, and for each rank a list of shards that together cover it.
struct Case {
  int world_size = 1;
  std::vector<std::vector<float>> tensors;
  std::vector<std::vector<TensorShard>> shards;  // [rank]; data is set when the rank copies it
  std::vector<std::vector<std::size_t>> tensor_of_shard;  // [rank]
};

std::string tensor_name(std::size_t i) {
  return "layer" + std::to_string(i / 2) + ".w" + std::to_string(i % 2);
}

void add(Case& c, int rank, std::size_t tensor, std::uint64_t begin, std::uint64_t end) {
  const auto r = static_cast<std::size_t>(rank);
  c.shards[r].push_back({tensor_name(tensor), "layer" + std::to_string(tensor / 2), nullptr,
                         end - begin, DType::kFloat32, c.tensors[tensor].size(), begin});
  c.tensor_of_shard[r].push_back(tensor);
}

// Each tensor is replicated on a random set of ranks, or cut at random places with random owners,
// or both.
void shard_tensor(Case& c, std::size_t tensor, std::mt19937_64& random) {
  const std::uint64_t size = c.tensors[tensor].size();
  const auto any_rank = [&] {
    return static_cast<int>(random() % static_cast<std::uint64_t>(c.world_size));
  };
  std::vector<std::uint64_t> cuts = {0, size};
  for (std::uint64_t i = random() % 5; i > 0; --i) cuts.push_back(size == 0 ? 0 : random() % size);
  std::sort(cuts.begin(), cuts.end());
  for (std::size_t i = 1; i < cuts.size(); ++i) {
    std::vector<bool> holds(static_cast<std::size_t>(c.world_size));
    holds[static_cast<std::size_t>(any_rank())] = true;
    for (std::uint64_t extra = random() % 3; extra > 0; --extra)
      holds[static_cast<std::size_t>(any_rank())] = true;
    for (int r = 0; r < c.world_size; ++r) {
      if (holds[static_cast<std::size_t>(r)]) add(c, r, tensor, cuts[i - 1], cuts[i]);
    }
  }
}

Case random_case(std::mt19937_64& random) {
  Case c;
  c.world_size = 1 + static_cast<int>(random() % 16);
  c.shards.resize(static_cast<std::size_t>(c.world_size));
  c.tensor_of_shard.resize(c.shards.size());
  std::normal_distribution<float> normal;
  const std::size_t tensors = 1 + random() % 12;
  for (std::size_t i = 0; i < tensors; ++i) {
    const float scale = std::exp2(static_cast<float>(random() % 60) - 30.0F);
    std::vector<float> values(random() % 3000);
    for (float& v : values) v = normal(random) * scale;
    c.tensors.push_back(std::move(values));
    shard_tensor(c, i, random);
  }
  return c;
}

double norm_of(const Case& c) {
  long double sum = 0;
  for (const auto& tensor : c.tensors) {
    for (const float v : tensor) sum += static_cast<long double>(v) * v;
  }
  return static_cast<double>(std::sqrt(sum));
}

// What one rank ends up with.
struct Result {
  std::uint64_t norm_bits = 0;
  std::uint64_t coefficient_bits = 0;
  Decision decision = Decision::kApply;
  bool clipped_right = true;
};

Result run_rank(const Case& c, Collective& ranks, double max_norm) {
  const auto r = static_cast<std::size_t>(ranks.rank());
  std::vector<TensorShard> shards = c.shards[r];
  std::vector<std::vector<float>> memory;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto begin =
        c.tensors[c.tensor_of_shard[r][i]].begin() + static_cast<std::ptrdiff_t>(shards[i].offset);
    memory.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(shards[i].count));
    shards[i].data = memory.back().data();
  }
  const std::vector<std::vector<float>> before = memory;
  Guard guard({.max_norm = max_norm}, ranks);
  guard.bind(shards);
  const StepOutcome outcome = guard.step({.step = 1});
  Result result{std::bit_cast<std::uint64_t>(outcome.grad_norm),
                std::bit_cast<std::uint64_t>(outcome.clip_coefficient), outcome.decision, true};
  const auto factor = static_cast<float>(outcome.clip_coefficient);
  for (std::size_t i = 0; i < memory.size(); ++i) {
    for (std::size_t j = 0; j < memory[i].size(); ++j) {
      result.clipped_right = result.clipped_right && memory[i][j] == before[i][j] * factor;
    }
  }
  return result;
}

TEST(GuardSharding, NormOfEveryRandomShardingEqualsTheUnshardedNormAndAllRanksAgreeBitForBit) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const Case c = random_case(random);
    const double expected = norm_of(c);
    const double max_norm = seed % 2 == 0 ? expected / 3 : 0;
    std::vector<Result> results(static_cast<std::size_t>(c.world_size));
    test::on_ranks(c.world_size, [&](Collective& ranks) {
      results[static_cast<std::size_t>(ranks.rank())] = run_rank(c, ranks, max_norm);
    });
    for (const Result& result : results) {
      EXPECT_EQ(result.norm_bits, results[0].norm_bits);
      EXPECT_EQ(result.coefficient_bits, results[0].coefficient_bits);
      EXPECT_EQ(result.decision, results[0].decision);
      EXPECT_TRUE(result.clipped_right);
    }
    EXPECT_NEAR(std::bit_cast<double>(results[0].norm_bits), expected, 1e-12 * expected);
    if (max_norm > 0) {
      EXPECT_EQ(results[0].decision, Decision::kClip);
    }
  }
}

TEST(GuardSharding, RanksTakeTheSameDecisionOverManyStepsWithFaultsOnOneRankOnly) {
  constexpr int kRanks = 8;
  constexpr int kSteps = 2000;
  std::vector<std::vector<Reason>> reasons(kRanks);
  test::on_ranks(kRanks, [&](Collective& ranks) {
    const auto r = static_cast<std::size_t>(ranks.rank());
    std::mt19937_64 random(99 + r);
    std::mt19937_64 faults(5);  // the same on every rank
    std::vector<float> g(64);
    const TensorShard shards[] = {
        {"w", "", g.data(), g.size(), DType::kFloat32, g.size() * kRanks, r * g.size()}};
    Guard guard({.max_norm = 5.0, .skip_above_rolling_mean = 3.0, .max_consecutive_skips = 4},
                ranks);
    guard.bind(shards);
    std::normal_distribution<float> normal;
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      for (float& v : g) v = normal(random) * 0.2F;
      const std::uint64_t draw = faults();
      if (draw / 1000 % kRanks == r) {
        if (draw % 50 == 0) g[draw % g.size()] = std::nanf("");
        if (draw % 50 == 1) g[draw % g.size()] = 1e3F;
      }
      reasons[r].push_back(guard.step({.step = step}).reason);
    }
  });
  std::size_t skips = 0;
  for (const Reason reason : reasons[0]) {
    skips += reason == Reason::kNonFinite || reason == Reason::kRollingMean ? 1 : 0;
  }
  EXPECT_GT(skips, 40U);
  for (const auto& of_rank : reasons) EXPECT_EQ(of_rank, reasons[0]);
}

}  // namespace
}  // namespace gradwarden
