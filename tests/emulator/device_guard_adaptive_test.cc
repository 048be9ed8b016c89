// Adaptive gradient clipping on emulated GPUs, against the guard of host memory: the same decisions
// and, on data whose sums are exact in any order, the same bits of every gradient.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "gradwarden/device_guard.h"
#include "gradwarden/error.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::GpuRank;
using emulator::run_gpu_ranks;
using testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Small whole numbers: every sum of their powers is exact in float64, in any order.
std::vector<float> whole_numbers(std::size_t count, std::uint32_t seed, int largest) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> value(-largest, largest);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(value(random));
  return values;
}

TensorShard shard(const char* name, const char* group, float* data, std::uint64_t count,
                  std::uint64_t total = 0, std::uint64_t offset = 0) {
  TensorShard made;
  made.name = name;
  made.group = group;
  made.data = data;
  made.count = count;
  made.total_count = total;
  made.offset = offset;
  return made;
}

// Two ranks: "cut" is in halves, "copied" on both, "stage" on rank 1 alone; the parameter of "cut"
// is cut elsewhere than its gradient.
struct Held {
  explicit Held(std::uint32_t rank_index) : rank(rank_index) { fill(0, 1); }

  void fill(std::uint32_t step, int scale) {
    gradients = {whole_numbers(600, step * 10 + rank + 1, 9 * scale),
                 whole_numbers(251, step * 10 + 3, 2 * scale),
                 whole_numbers(77, step * 10 + 4, 30 * scale)};
    parameters = {whole_numbers(rank == 0 ? 500 : 700, rank + 5, 40), whole_numbers(251, 7, 1),
                  whole_numbers(77, 8, 0)};
  }

  std::vector<TensorShard> list(float* cut, std::uint64_t count, std::uint64_t offset,
                                float* copied, float* stage) const {
    std::vector<TensorShard> shards = {shard("cut", "body", cut, count, 1200, offset),
                                       shard("copied", "body", copied, 251)};
    if (rank == 1) shards.push_back(shard("stage", "head", stage, 77));
    return shards;
  }
  std::vector<TensorShard> gradient_list(float* cut, float* copied, float* stage) const {
    return list(cut, 600, rank * 600, copied, stage);
  }
  std::vector<TensorShard> parameter_list(float* cut, float* copied, float* stage) const {
    return list(cut, rank == 0 ? 500 : 700, rank * 500, copied, stage);
  }

  std::uint32_t rank;
  std::vector<std::vector<float>> gradients;
  std::vector<std::vector<float>> parameters;
};

void expect_same(const StepOutcome& gpu, const StepOutcome& cpu) {
  EXPECT_EQ(gpu.decision, cpu.decision);
  EXPECT_EQ(gpu.reason, cpu.reason);
  EXPECT_EQ(gpu.clip_coefficient, cpu.clip_coefficient);
  EXPECT_EQ(gpu.clipped_groups, cpu.clipped_groups);
  EXPECT_EQ(gpu.clipped_tensors, cpu.clipped_tensors);
  EXPECT_EQ(gpu.should_update(), cpu.should_update());
}

// Returns how many tensors were clipped over the run, on rank 0.
std::uint32_t compare(const GuardOptions& options, std::optional<double> loss_scale = {}) {
  std::uint32_t clipped = 0;
  ThreadRanks threads(2);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    emulator::set_thread_order(emulator::Order::kShuffled);
    Held held(static_cast<std::uint32_t>(gpu.rank));
    DeviceFloats g[] = {DeviceFloats(held.gradients[0]), DeviceFloats(held.gradients[1]),
                        DeviceFloats(held.gradients[2])};
    DeviceFloats w[] = {DeviceFloats(held.parameters[0]), DeviceFloats(held.parameters[1]),
                        DeviceFloats(held.parameters[2])};
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard device({.guard = options}, ranks);
    device.bind({.gradients = held.gradient_list(g[0].data(), g[1].data(), g[2].data()),
                 .parameters = held.parameter_list(w[0].data(), w[1].data(), w[2].data())},
                gpu.stream);
    std::vector<std::vector<float>> host_gradients = held.gradients;
    Guard host(options, threads.rank(gpu.rank));
    host.bind(
        {.gradients = held.gradient_list(host_gradients[0].data(), host_gradients[1].data(),
                                         host_gradients[2].data()),
         .parameters = held.parameter_list(held.parameters[0].data(), held.parameters[1].data(),
                                           held.parameters[2].data())});
    for (std::uint32_t step = 1; step <= 6; ++step) {
      SCOPED_TRACE(step);
      const Held now = [&] {
        Held made(held.rank);
        made.fill(step, step == 4 ? 50 : 1);
        if (step == 5 && held.rank == 1) made.gradients[2][9] = std::nanf("");
        return made;
      }();
      for (std::size_t i = 0; i < 3; ++i) {
        g[i].put(now.gradients[i]);
        std::ranges::copy(now.gradients[i], host_gradients[i].begin());
      }
      ASSERT_EQ(device.step({.step = step, .loss_scale = loss_scale}, gpu.stream),
                DeviceStatus::kOk);
      StepOutcome outcome;
      ASSERT_EQ(device.wait(&outcome), DeviceStatus::kOk) << device.last_error();
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      expect_same(outcome, host.step({.step = step, .loss_scale = loss_scale}));
      for (std::size_t i = 0; i < 3; ++i) {
        const std::vector<float> after = g[i].get();
        EXPECT_EQ(std::memcmp(after.data(), host_gradients[i].data(), after.size() * 4), 0)
            << "gradient " << i;
      }
      if (gpu.rank == 0) clipped += outcome.clipped_tensors;
    }
  });
  return clipped;
}

TEST(DeviceGuardAdaptive, ScalesEachTensorByTheHostsBits) {
  GRADWARDEN_NEEDS_GPUS(2);
  EXPECT_GT(compare({.adaptive_clip = 0.3}), 0U);
}

TEST(DeviceGuardAdaptive, TakesTheSmallestOfAllCoefficientsAsTheHostDoes) {
  GRADWARDEN_NEEDS_GPUS(2);
  const GuardOptions options{.max_norm = 120,
                             .value_limit = 3,
                             .adaptive_clip = 0.25,
                             .adaptive_clip_least_norm = 2,
                             .group_rules = {{"head", 50, 0.5, 0.0}},
                             .skip_above = 4000};
  EXPECT_GT(compare(options), 0U);
}

TEST(DeviceGuardAdaptive, UnscalesNormsOfEveryTypeBeforeItCompares) {
  GRADWARDEN_NEEDS_GPUS(2);
  for (const double p : {1.0, 2.0, kInfinity}) {
    SCOPED_TRACE(p);
    EXPECT_GT(compare({.norm_type = p, .adaptive_clip = 0.01}, 8.0), 0U);
  }
}

TEST(DeviceGuardAdaptive, CountsInShadowModeWhatItWouldHaveClipped) {
  GRADWARDEN_NEEDS_GPUS(2);
  EXPECT_GT(compare({.adaptive_clip = 0.3, .group_rules = {{"body", 10, 0, {}}}, .shadow = true}),
            0U);
}

TEST(DeviceGuardAdaptive, ReadsParametersWhereTheyMovedTo) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(64, 1.0F));
    DeviceFloats before(std::vector<float>(64, 100.0F)), after(std::vector<float>(64, 2.0F));
    DeviceGuard guard({.guard = {.adaptive_clip = 0.25}});
    guard.bind({.gradients = std::vector{shard("w", "", gradient.data(), 64)},
                .parameters = std::vector{shard("w", "", before.data(), 64)}},
               gpu.stream);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    EXPECT_EQ(outcome.clipped_tensors, 0U);
    void* const data[] = {after.data()};
    ASSERT_EQ(guard.update_parameters(data, gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    EXPECT_EQ(outcome.reason, Reason::kAdaptiveClip);
    EXPECT_EQ(outcome.decision, Decision::kClip);
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    EXPECT_EQ(gradient.get()[17], 0.5F) << "a quarter of the parameter's norm";
    EXPECT_EQ(guard.update_parameters({}, gpu.stream), DeviceStatus::kInvalidArgument);
  });
}

TEST(DeviceGuardAdaptive, WithoutTheParameterIsAnErrorThatNamesTheTensor) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(4, 1.0F));
    DeviceGuard guard({.guard = {.adaptive_clip = 0.1}});
    try {
      guard.bind(std::vector{shard("layer.w", "", gradient.data(), 4)}, {}, gpu.stream);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("parameter of tensor \"layer.w\""));
    }
    EXPECT_THROW(
        DeviceGuard({.guard = {.adaptive_clip = 0.1}, .action = DeviceAction::kOptimizerScales}),
        Error);
  });
}

}  // namespace
}  // namespace gradwarden
