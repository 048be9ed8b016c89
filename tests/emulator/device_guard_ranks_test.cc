// The guard of GPU memory over several ranks: every rank decides alike, from the norm of the whole
// model, with and without CUDA graphs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <mutex>

#include "gradwarden/device_guard.h"
#include "gradwarden/error.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::DeviceValue;
using emulator::fetch;
using emulator::GpuRank;
using emulator::KeepingSink;
using emulator::norm_of_values;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;

// A model of which "sharded" is split over the ranks and "copied" is on all of them.
struct Model {
  std::vector<float> sharded;
  std::vector<float> copied;

  std::vector<float> part(const GpuRank& gpu) const {
    const std::size_t each = sharded.size() / static_cast<std::size_t>(gpu.size);
    const auto begin = sharded.begin() + static_cast<std::ptrdiff_t>(each) * gpu.rank;
    return {begin, begin + static_cast<std::ptrdiff_t>(each)};
  }
  double norm() const { return std::hypot(norm_of_values(sharded), norm_of_values(copied)); }
};

Model make_model(int ranks, std::uint32_t seed) {
  return {some_values(static_cast<std::size_t>(ranks) * 1537, seed), some_values(911, seed + 1)};
}

// This rank's part of a model in device memory, and how it is declared.
struct Held {
  Held(const Model& model, const GpuRank& gpu) : part(model.part(gpu)), copied(model.copied) {
    const std::uint64_t each = part.size();
    shards = {shard_of("sharded", part, each * static_cast<std::uint64_t>(gpu.size),
                       each * static_cast<std::uint64_t>(gpu.rank)),
              shard_of("copied", copied)};
  }
  void put(const Model& model, const GpuRank& gpu) {
    part.put(model.part(gpu));
    copied.put(model.copied);
  }
  DeviceFloats part;
  DeviceFloats copied;
  std::vector<TensorShard> shards;
};

// The same on all ranks, to the bit.
class SameOnAllRanks {
 public:
  void add(std::uint64_t step, double value) {
    const std::lock_guard lock(mutex_);
    if (values_.size() <= step) values_.resize(step + 1, std::nan(""));
    if (std::isnan(values_[step])) values_[step] = value;
    EXPECT_EQ(values_[step], value) << "step " << step;
  }

 private:
  std::mutex mutex_;
  std::vector<double> values_;
};

class DeviceGuardRanks : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Sizes, DeviceGuardRanks, testing::Values(2, 4, 16));

TEST_P(DeviceGuardRanks, AgreeOnTheNormOfTheUnshardedModelToTheBit) {
  GRADWARDEN_NEEDS_GPUS(GetParam());
  SameOnAllRanks norms;
  std::vector<Model> models;
  for (std::uint32_t seed = 0; seed < 4; ++seed) models.push_back(make_model(GetParam(), seed * 7));
  run_gpu_ranks(GetParam(), [&](GpuRank& gpu) {
    Held held(models[0], gpu);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({.guard = {.max_norm = 1.0}}, ranks);
    guard.bind(held.shards, {}, gpu.stream);
    for (std::uint64_t step = 0; step < models.size(); ++step) {
      held.put(models[step], gpu);
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk) << guard.last_error();
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk) << guard.last_error();
      EXPECT_NEAR(outcome.grad_norm, models[step].norm(), models[step].norm() * 1e-6);
      EXPECT_EQ(outcome.decision, Decision::kClip);
      norms.add(step, outcome.grad_norm);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    }
  });
}

TEST_P(DeviceGuardRanks, SkipTogetherWhenOneRankHoldsANaN) {
  GRADWARDEN_NEEDS_GPUS(GetParam());
  const Model model = make_model(GetParam(), 40);
  const int ill = GetParam() - 1;
  std::vector<KeepingSink> sinks(static_cast<std::size_t>(GetParam()));
  run_gpu_ranks(GetParam(), [&](GpuRank& gpu) {
    Held held(model, gpu);
    if (gpu.rank == ill) {
      std::vector<float> part = model.part(gpu);
      part[11] = std::numeric_limits<float>::quiet_NaN();
      held.part.put(part);
    }
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks, &sinks[static_cast<std::size_t>(gpu.rank)]);
    guard.bind(held.shards, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 5}, gpu.stream), DeviceStatus::kOk);
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    EXPECT_EQ(outcome.decision, Decision::kSkip);
    EXPECT_EQ(outcome.reason, Reason::kNonFinite);
    EXPECT_EQ(fetch(guard.found_inf()), 1.0F);
  });
  const std::uint64_t index = static_cast<std::uint64_t>(ill) * 1537 + 11;
  for (const std::size_t teller : {std::size_t{0}, static_cast<std::size_t>(ill)}) {
    ASSERT_EQ(sinks[teller].records().size(), 1U);
    const auto& found = sinks[teller].records()[0].non_finite;
    ASSERT_EQ(found.size(), 1U) << "rank " << teller;
    EXPECT_EQ(found[0].rank, static_cast<std::uint32_t>(ill));
    EXPECT_EQ(found[0].index, index);
  }
  EXPECT_EQ(sinks[0].records()[0].shard_norms.size(), static_cast<std::size_t>(GetParam()));
}

// Replays see the gradients, the loss scale, the threshold and the step of their own time.
TEST_P(DeviceGuardRanks, ReplayACapturedStepWithChangingInputs) {
  GRADWARDEN_NEEDS_GPUS(GetParam());
  SameOnAllRanks norms;
  constexpr int kReplays = 25;
  const Model model = make_model(GetParam(), 60);
  run_gpu_ranks(GetParam(), [&](GpuRank& gpu) {
    Held held(model, gpu);
    DeviceValue<float> scale(1);
    DeviceValue<double> max_norm(0);
    DeviceValue<std::int64_t> step(0);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({.action = DeviceAction::kOptimizerScales}, ranks);
    guard.bind(held.shards, {}, gpu.stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ASSERT_EQ(guard.step(
                  {.step_at = step.at(), .loss_scale_at = scale.at(), .max_norm_at = max_norm.at()},
                  gpu.stream),
              DeviceStatus::kOk);
    ASSERT_EQ(cudaStreamEndCapture(gpu.stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    for (int i = 1; i <= kReplays; ++i) {
      scale.put(static_cast<float>(i));
      max_norm.put(i % 2 == 0 ? 0.25 : 0.0);
      step.put(100 + i);
      guard.expect_replay(static_cast<std::uint64_t>(100 + i), gpu.stream);
      ASSERT_EQ(cudaGraphLaunch(replay, gpu.stream), cudaSuccess);
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk) << guard.last_error();
      const double norm = model.norm() / i;
      EXPECT_NEAR(outcome.grad_norm, norm, norm * 1e-6);
      EXPECT_EQ(outcome.clip_coefficient < 1, i % 2 == 0 && norm > 0.25) << i;
      norms.add(static_cast<std::uint64_t>(i), outcome.grad_norm);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  });
}

TEST(DeviceGuardRanks, WorkOnACommunicatorOfTheirOwnMadeFromAUniqueId) {
  GRADWARDEN_NEEDS_GPUS(4);
  const Model model = make_model(4, 80);
  NcclUniqueId id;
  std::once_flag once;
  run_gpu_ranks(4, [&](GpuRank& gpu) {
    std::call_once(once, [&] { id = NcclRanks::unique_id(); });
    Held held(model, gpu);
    NcclRanks ranks(id, gpu.rank, gpu.size, gpu.stream);
    EXPECT_EQ(ranks.rank(), gpu.rank);
    EXPECT_EQ(ranks.size(), 4);
    DeviceGuard guard({}, ranks);
    guard.bind(held.shards, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    EXPECT_NEAR(outcome.grad_norm, model.norm(), model.norm() * 1e-6);
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
  });
}

TEST(DeviceGuardRanks, HearOfEachOthersMisuseAtBind) {
  GRADWARDEN_NEEDS_GPUS(4);
  const Model model = make_model(4, 90);
  run_gpu_ranks(4, [&](GpuRank& gpu) {
    Held held(model, gpu);
    if (gpu.rank == 2) held.shards[1].group = "another";
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks);
    try {
      guard.bind(held.shards, {}, gpu.stream);
      ADD_FAILURE() << "no error on rank " << gpu.rank;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("copied"));
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 2"));
    }
  });
}

TEST(DeviceGuardRanks, HearOfAnAllocationThatFailsOnOneOfThem) {
  if (emulator::on_hardware()) GTEST_SKIP() << "no failures are injected into hardware";
  const Model model = make_model(2, 95);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    Held held(model, gpu);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks);
    // The exchanges of the declarations need memory on both; the pinned ring comes after them.
    if (gpu.rank == 1)
      emulator::fail_call("cudaEventCreateWithFlags", 1, cudaErrorMemoryAllocation);
    EXPECT_THROW(guard.bind(held.shards, {}, gpu.stream), Error) << "rank " << gpu.rank;
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kNotBound);
  });
}

}  // namespace
}  // namespace gradwarden
