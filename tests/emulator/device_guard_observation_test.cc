// What the guard of GPU memory observes beside the norm, against the guard of host memory on the
// same data: where non-finite elements lie in tensors of any shape, local gradients, noise scale.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "gradwarden/device_guard.h"
#include "gradwarden/mesh.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::GpuRank;
using emulator::KeepingSink;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;
using testing::ElementsAre;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void expect_same_findings(const std::vector<NonFiniteTensor>& gpu,
                          const std::vector<NonFiniteTensor>& cpu) {
  ASSERT_EQ(gpu.size(), cpu.size());
  for (std::size_t i = 0; i < gpu.size(); ++i) {
    EXPECT_EQ(gpu[i].tensor, cpu[i].tensor);
    EXPECT_EQ(gpu[i].rank, cpu[i].rank);
    EXPECT_EQ(gpu[i].index, cpu[i].index);
    EXPECT_EQ(gpu[i].nan_count, cpu[i].nan_count);
    EXPECT_EQ(gpu[i].inf_count, cpu[i].inf_count);
    EXPECT_EQ(gpu[i].local, cpu[i].local);
  }
}

// "up" is cut into columns over two ranks, so that no rank's part of it is contiguous; rank 1 finds
// a NaN in its columns, and had one in its own gradient of "down", which is cut into rows.
TEST(DeviceGuardObservation, NamesTheElementOfTheWholeTensorWhereAShardIsABoxOfIt) {
  GRADWARDEN_NEEDS_GPUS(2);
  const Mesh mesh({{"tp", 2}});
  std::vector<KeepingSink> device_sinks(2), host_sinks(2);
  ThreadRanks threads(2);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    const auto rank = static_cast<std::uint32_t>(gpu.rank);
    std::vector<float> up = some_values(37 * 12, rank + 1), down = some_values(64 * 30, rank + 3);
    std::vector<float> local = some_values(10 * 25, rank + 5);
    if (rank == 1) {
      up[5 * 12 + 7] = kNan;     // row 5, column 12 + 7 of 24
      local[3 * 25 + 2] = kNan;  // row 3, column 2 of a box at row 20, column 5
    }
    DeviceFloats dup(up), ddown(down), dlocal(local);
    const auto bindings = [&](float* a, float* b, float* c) {
      const MeshTensor wide{"up", "", {37, 24}, {split("tp", 1)}};
      const MeshTensor tall{"down", "", {128, 30}, {split("tp", 0)}};
      std::vector<std::vector<TensorShard>> lists(2);
      lists[0].push_back(*mesh.shard(wide, rank, a, DType::kFloat32));
      lists[0].push_back(*mesh.shard(tall, rank, b, DType::kFloat32));
      lists[1].push_back(box_shard("down", "", {128, 30}, {20, 5}, {10, 25}, c, DType::kFloat32));
      return lists;
    };
    NcclRanks ranks(gpu.communicator, gpu.stream);
    {
      DeviceGuard device({}, ranks, &device_sinks[rank]);
      const auto lists = bindings(dup.data(), ddown.data(), dlocal.data());
      device.bind(lists[0], lists[1], gpu.stream);
      ASSERT_EQ(device.observe_local(gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(device.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    }
    Guard host({}, threads.rank(gpu.rank), &host_sinks[rank]);
    const auto lists = bindings(up.data(), down.data(), local.data());
    host.bind(lists[0], lists[1]);
    host.observe_local();
    host.step({.step = 1});
  });
  for (std::size_t rank = 0; rank < 2; ++rank) {
    SCOPED_TRACE(rank);
    ASSERT_EQ(device_sinks[rank].records().size(), 1U);
    const auto& found = device_sinks[rank].records()[0].non_finite;
    expect_same_findings(found, host_sinks[rank].records()[0].non_finite);
    ASSERT_EQ(found.size(), 2U);
    EXPECT_EQ(found[0].index, (20U + 3) * 30 + 5 + 2) << "born in the local gradient of \"down\"";
    EXPECT_EQ(found[1].index, 5U * 24 + 12 + 7) << "in the reduced one of \"up\"";
  }
}

std::vector<std::uint64_t> observed_steps(const KeepingSink& sink) {
  std::vector<std::uint64_t> steps;
  for (const auto& kept : sink.records()) {
    if (!kept.local_norms.empty()) steps.push_back(kept.record.step);
  }
  return steps;
}

TEST(DeviceGuardObservation, ReadsLocalGradientsInEveryNthStepAndInEveryReplay) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient({1.0F}), local({2.0F});
    KeepingSink sink;
    {
      DeviceGuard guard({.guard = {.local_every = 3}}, &sink);
      guard.bind(std::vector{shard_of("w", gradient)}, std::vector{shard_of("w", local)},
                 gpu.stream);
      for (std::uint64_t step = 0; step < 8; ++step) {
        ASSERT_EQ(guard.observe_local(gpu.stream), DeviceStatus::kOk);
        ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
      }
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t replay = nullptr;
      ASSERT_EQ(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeGlobal), cudaSuccess);
      ASSERT_EQ(guard.observe_local(gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(guard.step({.step = 100}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(cudaStreamEndCapture(gpu.stream, &graph), cudaSuccess);
      ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
      for (int i = 0; i < 2; ++i) ASSERT_EQ(cudaGraphLaunch(replay, gpu.stream), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      cudaGraphExecDestroy(replay);
      cudaGraphDestroy(graph);
    }
    ASSERT_EQ(sink.records().size(), 10U);
    EXPECT_THAT(observed_steps(sink), ElementsAre(0, 3, 6, 8, 9));
  });
}

// The reduced gradient is the mean of the local ones.
TEST(DeviceGuardObservation, GivesTheNoiseScaleThatTheHostsGuardGives) {
  constexpr std::size_t kRanks = 2;
  constexpr std::size_t kSize = 300;
  GRADWARDEN_NEEDS_GPUS(kRanks);
  std::vector<KeepingSink> device_sinks(kRanks), host_sinks(kRanks);
  ThreadRanks threads(kRanks);
  run_gpu_ranks(kRanks, [&](GpuRank& gpu) {
    const auto rank = static_cast<std::size_t>(gpu.rank);
    const std::vector<float> signal = some_values(kSize, 99, 2);
    std::vector<float> mean(kSize), local(kSize);
    DeviceFloats dmean(mean), dlocal(local);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard device({}, ranks, &device_sinks[rank]);
    device.bind(std::vector{shard_of("w", dmean)}, std::vector{shard_of("w", dlocal)}, gpu.stream);
    Guard host({}, threads.rank(gpu.rank), &host_sinks[rank]);
    host.bind(std::vector{TensorShard{"w", "", mean.data(), kSize}},
              std::vector{TensorShard{"w", "", local.data(), kSize}});
    for (std::uint32_t step = 0; step < 20; ++step) {
      const std::vector<float> noise[] = {some_values(kSize, 2 * step),
                                          some_values(kSize, 2 * step + 1)};
      for (std::size_t i = 0; i < kSize; ++i) {
        local[i] = signal[i] + noise[rank][i];
        mean[i] = signal[i] + (noise[0][i] + noise[1][i]) / 2;
      }
      dmean.put(mean);
      dlocal.put(local);
      ASSERT_EQ(device.observe_local(gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(device.step({.step = step}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      host.observe_local();
      host.step({.step = step});
    }
  });
  ASSERT_EQ(device_sinks[0].records().size(), 20U);
  const auto& device = device_sinks[0].records().back().record.gradient_noise_scale;
  const auto& host = host_sinks[0].records().back().record.gradient_noise_scale;
  ASSERT_TRUE(host.has_value());
  ASSERT_TRUE(device.has_value());
  EXPECT_GT(*host, 0);
  EXPECT_NEAR(*device, *host, 1e-5 * *host);
}

}  // namespace
}  // namespace gradwarden
