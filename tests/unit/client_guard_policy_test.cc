// The guard's policies beyond clipping by global L2 norm: norm types, groups, values, adaptive
// thresholds; and its state as bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/shards.h"

namespace gradwarden {
namespace {

using test::error_of;
using test::whole;
using testing::HasSubstr;

TEST(GuardPolicy, ClipsByAnyNormType) {
  struct Case {
    double p;
    double norm;  // of {3, -4, 12}
  };
  for (const Case c : {Case{1, 19}, Case{2, 13}, Case{3, std::cbrt(27 + 64 + 1728.0)},
                       Case{0.5, std::pow(std::sqrt(3.0) + 2 + std::sqrt(12.0), 2)},
                       Case{std::numeric_limits<double>::infinity(), 12}}) {
    SingleRank ranks;
    std::vector<float> a = {3, -4};
    std::vector<float> b = {12};
    Guard guard({.max_norm = 1, .norm_type = c.p}, ranks);
    guard.bind(std::vector{whole("a", "", a), whole("b", "", b)});
    const StepOutcome outcome = guard.step({.step = 1});
    EXPECT_NEAR(outcome.grad_norm, c.norm, 1e-6 * c.norm) << c.p;
    EXPECT_NEAR(outcome.clip_coefficient, 1 / (c.norm + 1e-6), 1e-9) << c.p;
    EXPECT_NEAR(b[0], 12 / c.norm, 1e-5) << c.p;
  }
}

TEST(GuardPolicy, NormTypesHoldOverShards) {
  for (const double p : {1.0, 3.0, std::numeric_limits<double>::infinity()}) {
    test::on_ranks(3, [&](Collective& ranks) {
      std::vector<float> part = {static_cast<float>(ranks.rank() + 1), -2};
      TensorShard mine = whole("w", "", part);
      mine.total_count = 6;
      mine.offset = 2 * static_cast<std::uint64_t>(ranks.rank());
      Guard guard({.norm_type = p}, ranks);
      guard.bind(std::vector{mine});
      const double norm = guard.step({.step = 1}).grad_norm;
      double expected = 0;
      for (const double v : {1.0, 2.0, 2.0, 2.0, 3.0, 2.0}) {
        expected = std::isinf(p) ? std::max(expected, v) : expected + std::pow(v, p);
      }
      if (!std::isinf(p)) expected = std::pow(expected, 1 / p);
      EXPECT_NEAR(norm, expected, 1e-6 * expected) << p;
    });
  }
}

TEST(GuardPolicy, ClipsEachGroupByItsOwnThresholdAndTheWholeByTheSmallerCoefficient) {
  SingleRank ranks;
  std::vector<float> embedding = {30, 40};  // norm 50
  std::vector<float> layer = {0.3F, 0.4F};  // norm 0.5
  std::vector<float> head = {6, 8};         // norm 10
  Guard guard({.max_norm = 25, .group_rules = {{"embed*", 5, 0}, {"head", 100, 0}}}, ranks);
  guard.bind(std::vector{whole("e", "embedding", embedding), whole("l", "layer0", layer),
                         whole("h", "head", head)});
  const StepOutcome outcome = guard.step({.step = 1});
  const double whole = 25 / (std::sqrt(2500 + 0.25 + 100) + 1e-6);
  EXPECT_EQ(outcome.decision, Decision::kClip);
  EXPECT_EQ(outcome.reason, Reason::kMaxNorm);
  EXPECT_EQ(outcome.clipped_groups, 1U);
  EXPECT_NEAR(outcome.clip_coefficient, whole, 1e-9);
  EXPECT_NEAR(std::hypot(embedding[0], embedding[1]), 5, 1e-4);
  EXPECT_NEAR(layer[0], 0.3 * whole, 1e-6);
  EXPECT_NEAR(head[1], 8 * whole, 1e-5);
}

TEST(GuardPolicy, SaysThatOnlyAGroupWasClipped) {
  SingleRank ranks;
  std::vector<float> a = {3, 4};
  std::vector<float> b = {1};
  Guard guard({.group_rules = {{"a", 1, 0}}}, ranks);
  guard.bind(std::vector{whole("a", "", a), whole("b", "", b)});
  const StepOutcome outcome = guard.step({.step = 1});
  EXPECT_EQ(outcome.decision, Decision::kClip);
  EXPECT_EQ(outcome.reason, Reason::kGroupMaxNorm);
  EXPECT_EQ(outcome.clip_coefficient, 1);
  EXPECT_NEAR(a[0], 0.6, 1e-5);
  EXPECT_EQ(b[0], 1);
}

// Gradients that cannot be written: a step that did would not survive it.
TEST(GuardPolicy, AValueLimitThatNothingExceedsWritesNothing) {
  constexpr std::size_t kBytes = 4096;
  void* page = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  auto* values = static_cast<float*>(page);
  values[0] = 3;
  values[1] = -4;
  ASSERT_EQ(mprotect(page, kBytes, PROT_READ), 0);
  SingleRank ranks;
  Guard guard({.value_limit = 4.1}, ranks);
  guard.bind(std::vector<TensorShard>{{"w", "", values, 2, DType::kFloat32, 0, 0}});
  EXPECT_DOUBLE_EQ(guard.step({.step = 1}).grad_norm, 5);
  munmap(page, kBytes);
}

TEST(GuardPolicy, ClampsValuesWithARangeOfItsOwnForAGroup) {
  SingleRank ranks;
  std::vector<float> recurrent = {-5, 0.5F, 5};
  std::vector<float> output = {-50, 7, 5};
  Guard guard({.value_limit = 1, .group_rules = {{"out*", 0, 10}}}, ranks);
  guard.bind(std::vector{whole("r", "lstm", recurrent), whole("o", "output", output)});
  EXPECT_EQ(guard.step({.step = 1, .loss_scale = 1.0}).decision, Decision::kApply);
  EXPECT_EQ(recurrent, (std::vector<float>{-1, 0.5F, 1}));
  EXPECT_EQ(output, (std::vector<float>{-10, 7, 5}));
}

TEST(GuardPolicy, ClampsUnscaledValues) {
  SingleRank ranks;
  std::vector<float> g = {-5 * 64, 0.5F * 64};
  Guard guard({.value_limit = 1}, ranks);
  guard.bind(std::vector{whole("w", "", g)});
  guard.step({.step = 1, .loss_scale = 64.0});
  EXPECT_EQ(g, (std::vector<float>{-1, 0.5F}));
}

TEST(GuardPolicy, RefusesAGroupRuleThatMatchesNothing) {
  SingleRank ranks;
  std::vector<float> g = {1};
  Guard guard({.group_rules = {{"hed", 1, 0}}}, ranks);
  const std::string error = error_of([&] { guard.bind(std::vector{whole("w", "head", g)}); });
  EXPECT_THAT(error, HasSubstr("\"hed\""));
  EXPECT_THAT(error, HasSubstr("\"head\""));
}

TEST(GuardPolicy, EachOptionOutOfRangeIsNamedWithItsValueAndWhatIsAllowed) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<std::pair<GuardOptions, std::string>> bad = {
      {{.clip_rule = ClipRule::kZScore}, "clip_value is 0"},
      {{.clip_rule = ClipRule::kPercentile, .clip_value = 101}, "clip_value is 101"},
      {{.clip_rule = static_cast<ClipRule>(9)}, "clip_rule is 9"},
      {{.norm_type = 0}, "norm_type is 0"},
      {{.norm_type = nan}, "norm_type is nan"},
      {{.value_limit = -1}, "value_limit is -1"},
      {{.group_rules = {{"", 1, 0}}}, "empty pattern"},
      {{.group_rules = {{"a", nan, 0}}}, "max_norm of group rule \"a\" is nan"},
      {{.skip_above_z = nan}, "skip_above_z is nan"},
      {{.skip_above_robust_z = -2}, "skip_above_robust_z is -2"},
      {{.on_spike = static_cast<SpikeAction>(7)}, "on_spike is 7"},
      {{.least_learning_rate_factor = 0}, "least_learning_rate_factor is 0"},
      {{.ema_decay = 1}, "ema_decay is 1"}};
  for (const auto& [options, message] : bad) {
    SingleRank ranks;
    const std::string error = error_of([&] { const Guard guard(options, ranks); });
    EXPECT_THAT(error, HasSubstr(message));
    EXPECT_THAT(error, testing::AnyOf(HasSubstr("allowed"), HasSubstr("matches all groups")));
  }
}

// ---- state -------------------------------------------------------------------------------------

const GuardOptions kAdaptive{.clip_rule = ClipRule::kZScore,
                             .clip_value = 2.5,
                             .skip_above_rolling_mean = 3,
                             .skip_above_z = 8,
                             .skip_above_robust_z = 8,
                             .window = 30,
                             .warmup = 10,
                             .level_shift_after = 5};

struct Driven {
  explicit Driven(const GuardOptions& options = kAdaptive) : guard(options, ranks) {
    guard.bind(std::vector{whole("w", "", gradient)});
  }
  StepOutcome step(float norm) {
    gradient[0] = norm;
    return guard.step({.step = ++steps});
  }
  SingleRank ranks;
  std::vector<float> gradient = {0};
  std::uint64_t steps = 0;
  Guard guard;
};

// Noise with spikes, NaN and a level shift.
std::vector<float> eventful(int count) {
  std::mt19937 random(21);
  std::lognormal_distribution<float> noise(0, 0.15F);
  std::vector<float> norms;
  for (int i = 0; i < count; ++i) {
    float norm = noise(random) * (i > count / 2 ? 6.0F : 1.0F);
    if (random() % 20 == 0) norm *= 30;
    if (random() % 40 == 0) norm = std::numeric_limits<float>::quiet_NaN();
    norms.push_back(norm);
  }
  return norms;
}

bool same(const StepOutcome& a, const StepOutcome& b) {
  return a.decision == b.decision && a.reason == b.reason &&
         std::memcmp(&a.clip_coefficient, &b.clip_coefficient, sizeof(double)) == 0;
}

TEST(GuardState, RestoredAnywhereTheGuardDecidesAsIfItHadNeverStopped) {
  const std::vector<float> norms = eventful(300);
  for (std::size_t stop = 0; stop < norms.size(); stop += 7) {
    Driven whole;
    for (std::size_t i = 0; i < stop; ++i) whole.step(norms[i]);
    Driven resumed;
    resumed.guard.restore_state(whole.guard.save_state());
    for (std::size_t i = stop; i < norms.size(); ++i) {
      ASSERT_TRUE(same(whole.step(norms[i]), resumed.step(norms[i])))
          << "saved at " << stop << ", differs at " << i;
    }
    ASSERT_EQ(whole.guard.save_state(), resumed.guard.save_state());
  }
}

TEST(GuardState, DamagedBytesAreRefusedAndChangeNothing) {
  Driven driven;
  for (const float norm : eventful(100)) driven.step(norm);
  const std::vector<std::byte> good = driven.guard.save_state();
  for (std::size_t i = 0; i < good.size(); i += 3) {
    std::vector<std::byte> bad = good;
    bad[i] ^= std::byte{0x10};
    EXPECT_FALSE(error_of([&] { driven.guard.restore_state(bad); }).empty()) << "byte " << i;
  }
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, good.size() - 1}) {
    const std::span<const std::byte> cut(good.data(), size);
    EXPECT_FALSE(error_of([&] { driven.guard.restore_state(cut); }).empty()) << size << " bytes";
  }
  EXPECT_EQ(driven.guard.save_state(), good);
}

TEST(GuardState, OfAGuardWithOtherWindowsIsRefused) {
  Driven driven;
  GuardOptions other = kAdaptive;
  other.window = 31;
  Driven another(other);
  const std::string error =
      error_of([&] { another.guard.restore_state(driven.guard.save_state()); });
  EXPECT_THAT(error, HasSubstr("window 30"));
  EXPECT_THAT(error, HasSubstr("31"));
}

}  // namespace
}  // namespace gradwarden
