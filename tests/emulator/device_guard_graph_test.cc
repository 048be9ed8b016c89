// A captured step, replayed a thousand times, against the rule on the host.
#include <gtest/gtest.h>

#include <random>

#include "client/guard/options.h"
#include "gradwarden/device_guard.h"
#include "kernels/numerics/decision.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::DeviceValue;
using emulator::fetch;
using emulator::GpuRank;
using emulator::KeepingSink;
using emulator::run_gpu_ranks;
using emulator::shard_of;

struct Replay {
  float gradient = 0;  // of every element
  float loss_scale = 1;
  double max_norm = 0;
};

// Steady, with spikes, a NaN now and then, a scale that halves and doubles, a moving threshold.
std::vector<Replay> make_replays(int count) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> around(0.9F, 1.1F);
  std::vector<Replay> replays;
  for (int i = 0; i < count; ++i) {
    Replay replay;
    replay.loss_scale = static_cast<float>(1 << (random() % 12));
    replay.gradient = around(random) * replay.loss_scale * (random() % 50 == 0 ? 20.0F : 1.0F);
    if (random() % 100 == 0) replay.gradient = std::numeric_limits<float>::quiet_NaN();
    replay.max_norm = i % 3 == 0 ? 0.0 : 4.0 + static_cast<double>(random() % 100) / 10;
    replays.push_back(replay);
  }
  return replays;
}

TEST(DeviceGuardGraph, AThousandReplaysDecideAsTheHostsRuleDoesWithScaleAndThresholdOfTheirTime) {
  GRADWARDEN_NEEDS_GPUS(1);
  constexpr std::size_t kElements = 64;  // the norm is 8 times an element
  const std::vector<Replay> replays = make_replays(1000);
  KeepingSink sink;
  const GuardOptions options{
      .skip_above = 100, .skip_above_rolling_mean = 3, .window = 50, .warmup = 10};
  kernels::GuardPolicy policy = guard::policy_of(options);
  kernels::GuardState state;
  run_gpu_ranks(1, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    DeviceFloats gradient(std::vector<float>(kElements, 1.0F));
    DeviceValue<float> scale(1);
    DeviceValue<double> max_norm(0);
    DeviceGuard guard({.guard = options, .action = DeviceAction::kOptimizerScales}, &sink);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(guard.step({.step = 1, .loss_scale_at = scale.at(), .max_norm_at = max_norm.at()},
                         gpu.stream),
              DeviceStatus::kOk);
    ASSERT_EQ(cudaStreamEndCapture(gpu.stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    for (std::size_t i = 0; i < replays.size(); ++i) {
      gradient.put(std::vector<float>(kElements, replays[i].gradient));
      scale.put(replays[i].loss_scale);
      max_norm.put(replays[i].max_norm);
      guard.expect_replay(i + 1, gpu.stream);
      ASSERT_EQ(cudaGraphLaunch(replay, gpu.stream), cudaSuccess);
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk) << guard.last_error();

      policy.max_norm = replays[i].max_norm;
      const bool finite = std::isfinite(replays[i].gradient);
      const double norm = 8.0 * replays[i].gradient / replays[i].loss_scale;
      const kernels::StepVerdict expected =
          kernels::decide(policy, state, {finite ? norm : 0, !finite, true});
      ASSERT_EQ(static_cast<int>(outcome.decision), static_cast<int>(expected.decision)) << i;
      ASSERT_EQ(static_cast<int>(outcome.reason), static_cast<int>(expected.reason)) << i;
      ASSERT_NEAR(outcome.clip_coefficient, expected.clip_coefficient, 1e-6) << i;
      const bool skipped = expected.decision == kernels::Decision::kSkip;
      ASSERT_EQ(fetch(guard.found_inf()), skipped ? 1.0F : 0.0F) << i;
      if (!skipped) {
        ASSERT_FLOAT_EQ(fetch(guard.grad_scale()),
                        static_cast<float>(replays[i].loss_scale / outcome.clip_coefficient));
      }
    }
    EXPECT_EQ(guard.lost_records(), 0U);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  });
  ASSERT_EQ(sink.records().size(), replays.size());
  for (std::size_t i = 0; i < replays.size(); ++i) {
    ASSERT_EQ(sink.records()[i].record.step, i + 1) << "steps count on by themselves";
    ASSERT_EQ(sink.records()[i].record.loss_scale, replays[i].loss_scale);
  }
}

TEST(DeviceGuardGraph, RefusesToMoveGradientsWhileTheStreamIsCaptured) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(16, 1.0F));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    ASSERT_EQ(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    void* const data[] = {gradient.data()};
    EXPECT_EQ(guard.update(data, gpu.stream), DeviceStatus::kCapturing);
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(gpu.stream, &graph), cudaSuccess) << "the capture is still good";
    cudaGraphDestroy(graph);
  });
}

}  // namespace
}  // namespace gradwarden
