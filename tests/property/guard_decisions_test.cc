// Whether 16 ranks ever decide differently: 10,000 random steps over random sharded models, under
// policies that between them switch on every rule, with random faults. Prints what was decided.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <random>
#include <set>

#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"

namespace gradwarden {
namespace {

constexpr int kRanks = 16;
constexpr std::size_t kStepsPerPolicy = 1000;

// ---- a random sharded model --------------------------------------------------------------------

struct Piece {
  std::size_t tensor = 0;
  std::uint64_t offset = 0;
  std::uint64_t count = 0;
};

struct Model {
  std::vector<std::uint64_t> sizes;
  std::array<std::vector<Piece>, kRanks> held;
};

// Each tensor is cut at random places; each piece is on one rank, on a few, or on all.
Model random_model(std::mt19937_64& random) {
  Model model;
  const std::size_t tensors = 2 + random() % 7;
  for (std::size_t tensor = 0; tensor < tensors; ++tensor) {
    const std::uint64_t size = 1 + random() % 48;
    model.sizes.push_back(size);
    for (std::uint64_t begin = 0; begin < size;) {
      const std::uint64_t count = std::min(size - begin, 1 + random() % size);
      const std::uint64_t holders = random() % 4 == 0 ? kRanks : 1 + random() % 3;
      std::set<std::size_t> ranks;
      while (ranks.size() < holders) ranks.insert(random() % kRanks);
      for (const std::size_t rank : ranks) model.held[rank].push_back({tensor, begin, count});
      begin += count;
    }
  }
  return model;
}

// ---- random faults -----------------------------------------------------------------------------

constexpr int kNoRank = -1;

// What happens in one step; the same plan on every rank.
struct Plan {
  std::uint64_t seed = 0;
  double level = 1;  // of the gradients
  double loss_scale = 0;
  int nan_rank = kNoRank;
  int inf_rank = kNoRank;
  int spike_rank = kNoRank;  // whose shards alone are a thousand times larger
  bool exchange_fails = false;
};

// Noise; lasting changes of level; spikes of all ranks and runs of NaNs, both up to longer than the
// bound on consecutive skips; faults of one rank.
std::vector<Plan> random_plans(std::mt19937_64& random, bool scaled) {
  std::lognormal_distribution<double> noise(0, 0.15);
  std::uniform_real_distribution<double> decades(-0.7, 0.7);
  const auto one_in = [&](std::uint64_t n) { return random() % n == 0; };
  const auto any_rank = [&] { return static_cast<int>(random() % kRanks); };
  std::vector<Plan> plans(kStepsPerPolicy);
  double level = 1;
  double burst_factor = 1;
  std::uint64_t burst = 0;
  std::uint64_t nan_run = 0;
  for (Plan& plan : plans) {
    if (one_in(250)) level *= std::pow(10, decades(random));
    if (burst == 0 && one_in(40)) {
      burst = one_in(4) ? 1 + random() % 30 : 1;
      burst_factor = std::pow(10, 1.5 + decades(random));
    }
    if (nan_run == 0 && one_in(60)) nan_run = one_in(4) ? 1 + random() % 12 : 1;
    plan.seed = random();
    plan.level = level * noise(random) * (burst > 0 ? burst_factor : 1);
    if (scaled) plan.loss_scale = std::ldexp(1.0, static_cast<int>(random() % 16));
    if (nan_run > 0) plan.nan_rank = any_rank();
    if (one_in(60)) plan.inf_rank = any_rank();
    if (one_in(60)) plan.spike_rank = any_rank();
    plan.exchange_fails = one_in(100);
    if (burst > 0) --burst;
    if (nan_run > 0) --nan_run;
  }
  return plans;
}

// Between -1 and 1, from the position alone: replicas hold the same.
double value_at(std::uint64_t seed, std::size_t tensor, std::uint64_t index) {
  std::uint64_t x = seed ^ (tensor * 0x9e3779b97f4a7c15U) ^ (index * 0xbf58476d1ce4e5b9U);
  x = (x ^ (x >> 31)) * 0x94d049bb133111ebU;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9U;
  return static_cast<double>(x >> 11) * 0x1p-52 - 1;
}

void fill(std::vector<float>& gradient, const Piece& piece, const Plan& plan, int rank) {
  double level = plan.level * (plan.loss_scale > 0 ? plan.loss_scale : 1);
  if (plan.spike_rank == rank) level *= 1000;
  for (std::uint64_t i = 0; i < piece.count; ++i) {
    gradient[i] = static_cast<float>(level * value_at(plan.seed, piece.tensor, piece.offset + i));
  }
  float& one = gradient[plan.seed % piece.count];
  if (plan.nan_rank == rank) one = std::numeric_limits<float>::quiet_NaN();
  if (plan.inf_rank == rank) one = -std::numeric_limits<float>::infinity();
}

class SometimesFailing final : public Collective {
 public:
  explicit SometimesFailing(Collective& ranks) : ranks_(ranks) {}
  int rank() const noexcept override { return ranks_.rank(); }
  int size() const noexcept override { return ranks_.size(); }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override {
    return !fails && ranks_.all_gather(send, receive, bytes);
  }
  bool fails = false;

 private:
  Collective& ranks_;
};

// ---- one rank's run ----------------------------------------------------------------------------

// All that one rank made of one step, bit for bit.
struct Made {
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
  std::array<std::uint64_t, 4> numbers{};
  std::array<bool, 3> flags{};
  std::vector<std::byte> state;
  bool operator==(const Made&) const = default;
};

Made made_of(const StepOutcome& o, std::vector<std::byte> state) {
  // Ranks that could not exchange know no global norm, each its own alone.
  const double norm = o.reason == Reason::kCollectiveFailed ? 0 : o.grad_norm;
  return {o.decision,
          o.reason,
          {std::bit_cast<std::uint64_t>(norm), std::bit_cast<std::uint64_t>(o.clip_coefficient),
           std::bit_cast<std::uint64_t>(o.learning_rate_factor), o.clipped_groups},
          {o.shadow, o.stop_requested, o.should_update()},
          std::move(state)};
}

struct RankRun {
  std::vector<Made> steps;
  std::size_t touched_skips = 0;  // skipped steps in which a gradient bit changed
};

bool same_bits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
  }
  return true;
}

RankRun run_rank(const Model& model, const std::vector<Plan>& plans, const GuardOptions& policy,
                 Collective& group) {
  SometimesFailing ranks(group);
  const std::vector<Piece>& held = model.held[static_cast<std::size_t>(group.rank())];
  std::vector<std::vector<float>> gradients;
  std::vector<TensorShard> shards;
  for (const Piece& piece : held) gradients.emplace_back(piece.count);
  for (std::size_t i = 0; i < held.size(); ++i) {
    const std::string name = "tensor" + std::to_string(held[i].tensor);
    shards.push_back({name, "layer" + std::to_string(held[i].tensor / 2), gradients[i].data(),
                      held[i].count, DType::kFloat32, model.sizes[held[i].tensor], held[i].offset});
  }
  Guard guard(policy, ranks);
  guard.bind(shards);
  RankRun run;
  for (std::size_t step = 0; step < plans.size(); ++step) {
    const Plan& plan = plans[step];
    for (std::size_t i = 0; i < held.size(); ++i) fill(gradients[i], held[i], plan, group.rank());
    const std::vector<std::vector<float>> before = gradients;
    ranks.fails = plan.exchange_fails;
    StepInput input{.step = step};
    if (plan.loss_scale > 0) input.loss_scale = plan.loss_scale;
    const StepOutcome outcome = guard.step(input);
    if (!outcome.should_update() && !same_bits(before, gradients)) ++run.touched_skips;
    run.steps.push_back(made_of(outcome, guard.save_state()));
  }
  return run;
}

// ---- the policies ------------------------------------------------------------------------------

struct Policy {
  const char* name;
  bool scaled;  // whether steps come with a loss scale
  GuardOptions options;
};

std::vector<Policy> policies() {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<Policy> list = {
      {"clip fixed, skip by rolling mean", false, {.max_norm = 5, .skip_above_rolling_mean = 3}},
      {"clip by rolling mean, skip above a limit",
       false,
       {.clip_rule = ClipRule::kRollingMean, .clip_value = 1.2, .skip_above = 60}},
      {"clip and skip by z-score",
       false,
       {.clip_rule = ClipRule::kZScore, .clip_value = 2.5, .skip_above_z = 6}},
      {"clip by percentile, skip by robust z-score",
       false,
       {.clip_rule = ClipRule::kPercentile, .clip_value = 90, .skip_above_robust_z = 6}},
      {"groups and values, reduce by rolling mean",
       false,
       {.value_limit = 2,
        .group_rules = {{"layer0", 3, 0}, {"*", 0, 0.5}},
        .skip_above_rolling_mean = 2.5,
        .on_spike = SpikeAction::kReduceLearningRate}},
      {"reduce by z-score",
       false,
       {.max_norm = 6, .skip_above_z = 5, .on_spike = SpikeAction::kReduceLearningRate}},
      {"loss scale, stop when skips are used up",
       true,
       {.max_norm = 5, .skip_above_rolling_mean = 3, .fallback = Fallback::kRequestStop}},
      {"1-norm, percentile and z-score",
       false,
       {.clip_rule = ClipRule::kPercentile, .clip_value = 75, .norm_type = 1, .skip_above_z = 8}},
      {"infinity norm, only observed",
       false,
       {.max_norm = 1.2, .norm_type = kInfinity, .skip_above_rolling_mean = 3, .shadow = true}},
      {"every rule, loss scale",
       true,
       {.max_norm = 8,
        .clip_rule = ClipRule::kZScore,
        .clip_value = 2,
        .value_limit = 4,
        .group_rules = {{"layer1", 2, 1}},
        .skip_above = 200,
        .skip_above_rolling_mean = 4,
        .skip_above_z = 9,
        .skip_above_robust_z = 9}}};
  for (Policy& policy : list) {
    policy.options.window = 50;
    policy.options.max_consecutive_skips = 6;
  }
  return list;
}

// ---- the test ----------------------------------------------------------------------------------

struct Tally {
  std::map<Decision, std::size_t> decisions;
  std::map<Reason, std::size_t> reasons;
  std::size_t steps = 0;
  std::size_t differing = 0;
  std::size_t touched = 0;
};

void count(const std::array<RankRun, kRanks>& runs, Tally& tally) {
  for (std::size_t step = 0; step < runs[0].steps.size(); ++step) {
    const Made& first = runs[0].steps[step];
    bool differs = false;
    for (const RankRun& run : runs) differs = differs || run.steps[step] != first;
    ++tally.steps;
    ++tally.decisions[first.decision];
    ++tally.reasons[first.reason];
    tally.differing += differs ? 1 : 0;
  }
  for (const RankRun& run : runs) tally.touched += run.touched_skips;
}

void print(const Tally& tally) {
  std::printf("%zu steps on %d ranks:", tally.steps, kRanks);
  for (const auto& [decision, times] : tally.decisions) {
    std::printf(" %s %zu", std::string(to_string(decision)).c_str(), times);
  }
  std::printf("; reasons:");
  for (const auto& [reason, times] : tally.reasons) {
    std::printf(" %s %zu", std::string(to_string(reason)).c_str(), times);
  }
  std::printf("; steps that differ between ranks %zu, skips that touched a gradient %zu\n",
              tally.differing, tally.touched);
}

TEST(GuardDecisions, AreTheSameOnSixteenRanksOverTenThousandStepsWithRandomFaults) {
  Tally all;
  std::uint64_t seed = 2026;
  for (const Policy& policy : policies()) {
    SCOPED_TRACE(std::string(policy.name) + ", seed " + std::to_string(++seed));
    std::mt19937_64 random(seed);
    const Model model = random_model(random);
    const std::vector<Plan> plans = random_plans(random, policy.scaled);
    std::array<RankRun, kRanks> runs;
    test::on_ranks(kRanks, [&](Collective& ranks) {
      runs[static_cast<std::size_t>(ranks.rank())] = run_rank(model, plans, policy.options, ranks);
    });
    const std::size_t differing = all.differing;
    count(runs, all);
    EXPECT_EQ(all.differing, differing);
  }
  print(all);
  EXPECT_EQ(all.steps, 10'000U);
  EXPECT_EQ(all.differing, 0U);
  EXPECT_EQ(all.touched, 0U);
  // Otherwise the above would prove little.
  EXPECT_EQ(all.decisions.size(), 4U);
  for (const Reason reason :
       {Reason::kWithinLimits, Reason::kMaxNorm, Reason::kNonFinite, Reason::kLossScaleOverflow,
        Reason::kAbsoluteLimit, Reason::kRollingMean, Reason::kSkipLimit, Reason::kCollectiveFailed,
        Reason::kZScore, Reason::kRobustZScore, Reason::kGroupMaxNorm}) {
    EXPECT_GT(all.reasons[reason], 0U) << to_string(reason);
  }
}

}  // namespace
}  // namespace gradwarden
