// The policies of the guard on an emulated GPU decide and act as the guard of host memory does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "gradwarden/device_guard.h"
#include "gradwarden/error.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::GpuRank;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;

TensorShard host_shard(const char* name, std::vector<float>& values, const char* group) {
  return {name, group, values.data(), values.size(), DType::kFloat32, 0, 0};
}

void expect_alike(const StepOutcome& gpu, const StepOutcome& cpu) {
  EXPECT_EQ(gpu.decision, cpu.decision);
  EXPECT_EQ(gpu.reason, cpu.reason);
  EXPECT_EQ(gpu.clipped_groups, cpu.clipped_groups);
  EXPECT_NEAR(gpu.grad_norm, cpu.grad_norm, 1e-6 * cpu.grad_norm);
  EXPECT_NEAR(gpu.clip_coefficient, cpu.clip_coefficient, 1e-6);
  EXPECT_NEAR(gpu.learning_rate_factor, cpu.learning_rate_factor, 1e-6);
}

// Both guards over the same run: noise, spikes, a level shift.
void compare(const GuardOptions& options) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    std::vector<float> a = some_values(3000, 1);
    std::vector<float> b = some_values(500, 2);
    DeviceFloats da(a);
    DeviceFloats db(b);
    SingleRank ranks;
    Guard host(options, ranks);
    DeviceGuard device({.guard = options});
    host.bind(std::vector{host_shard("a", a, "embedding"), host_shard("b", b, "head")});
    device.bind(std::vector{shard_of("a", da, 0, 0, "embedding"), shard_of("b", db, 0, 0, "head")},
                {}, gpu.stream);
    for (std::uint32_t step = 0; step < 60; ++step) {
      float scale = step < 40 ? 1.0F : 6.0F;
      if (step % 17 == 16) scale *= 40;
      // Into the same memory: the host's guard is bound to it.
      std::ranges::copy(some_values(3000, step, scale), a.begin());
      std::ranges::copy(some_values(500, step + 1000, scale), b.begin());
      if (step == 30) b[7] = std::numeric_limits<float>::quiet_NaN();
      da.put(a);
      db.put(b);
      ASSERT_EQ(device.step({.step = step}, gpu.stream), DeviceStatus::kOk);
      StepOutcome outcome;
      ASSERT_EQ(device.wait(&outcome), DeviceStatus::kOk);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      SCOPED_TRACE(step);
      const StepOutcome expected = host.step({.step = step});
      if (std::isnan(expected.grad_norm)) {
        EXPECT_TRUE(std::isnan(outcome.grad_norm));
        EXPECT_EQ(outcome.reason, expected.reason);
        continue;
      }
      expect_alike(outcome, expected);
      const std::vector<float> got_a = da.get();
      const std::vector<float> got_b = db.get();
      for (std::size_t i = 0; i < a.size(); i += 97)
        ASSERT_NEAR(got_a[i], a[i], 2e-6 * std::fabs(a[i]));
      for (std::size_t i = 0; i < b.size(); i += 31)
        ASSERT_NEAR(got_b[i], b[i], 2e-6 * std::fabs(b[i]));
    }
  });
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(DeviceGuardPolicy, GroupsAndValuesAreClippedAsOnTheHost) {
  compare({.max_norm = 30, .value_limit = 0.9, .group_rules = {{"emb*", 20, 0}, {"head", 0, 0.5}}});
}

TEST(DeviceGuardPolicy, NormTypesAreAsOnTheHost) {
  for (const double p : {1.0, 3.0, kInfinity}) {
    SCOPED_TRACE(p);
    compare({.max_norm = 2, .norm_type = p, .group_rules = {{"head", 0.5, 0}}});
  }
}

TEST(DeviceGuardPolicy, AdaptiveThresholdsAreAsOnTheHost) {
  for (const ClipRule rule : {ClipRule::kRollingMean, ClipRule::kZScore, ClipRule::kPercentile}) {
    SCOPED_TRACE(static_cast<int>(rule));
    compare({.clip_rule = rule,
             .clip_value = rule == ClipRule::kPercentile ? 60.0 : 1.2,
             .window = 15,
             .warmup = 5,
             .level_shift_after = 5});
  }
}

TEST(DeviceGuardPolicy, ZScoresSkipOrReduceAsOnTheHost) {
  for (const SpikeAction action : {SpikeAction::kSkip, SpikeAction::kReduceLearningRate}) {
    compare({.skip_above_z = 6,
             .skip_above_robust_z = 6,
             .on_spike = action,
             .window = 15,
             .warmup = 5,
             .level_shift_after = 5});
  }
}

TEST(DeviceGuardPolicy, AnOptimizerThatScalesCannotHaveGroupRules) {
  const DeviceGuardOptions options{.guard = {.value_limit = 1},
                                   .action = DeviceAction::kOptimizerScales};
  EXPECT_THROW(DeviceGuard{options}, Error);
}

}  // namespace
}  // namespace gradwarden
