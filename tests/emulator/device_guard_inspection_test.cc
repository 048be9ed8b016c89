// The audit of replicas and the statistics of other lists on emulated GPUs: the same findings, in
// the same steps, as the guard of host memory has of the same data.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <barrier>
#include <cstring>
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
using emulator::KeptRecord;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;
using testing::ElementsAre;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void flip_lowest_bit(float& value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= 1;
  std::memcpy(&value, &bits, sizeof bits);
}

void expect_same_mismatch(const ReplicaMismatch& gpu, const ReplicaMismatch& cpu) {
  EXPECT_EQ(gpu.tensor, cpu.tensor);
  EXPECT_EQ(gpu.signal, cpu.signal);
  EXPECT_EQ(gpu.index, cpu.index);
  EXPECT_EQ(gpu.count, cpu.count);
  EXPECT_EQ(gpu.rank_count, cpu.rank_count);
  EXPECT_EQ(gpu.ranks, cpu.ranks);
  EXPECT_EQ(gpu.declared_identical, cpu.declared_identical);
  EXPECT_NEAR(gpu.relative_difference, cpu.relative_difference, 1e-6);
}

void expect_same_signal(const SignalStatistics& gpu, const SignalStatistics& cpu) {
  EXPECT_EQ(gpu.signal, cpu.signal);
  EXPECT_NEAR(gpu.norm, cpu.norm, 1e-6 * cpu.norm);
  EXPECT_EQ(gpu.max_abs, cpu.max_abs);
  EXPECT_EQ(gpu.nan_count, cpu.nan_count);
  EXPECT_EQ(gpu.inf_count, cpu.inf_count);
  EXPECT_EQ(gpu.zero_count, cpu.zero_count);
  EXPECT_EQ(gpu.element_count, cpu.element_count);
}

void expect_same_record(const KeptRecord& gpu, const KeptRecord& cpu) {
  EXPECT_EQ(gpu.record.step, cpu.record.step);
  EXPECT_EQ(gpu.record.audited_replicas, cpu.record.audited_replicas);
  ASSERT_EQ(gpu.mismatches.size(), cpu.mismatches.size());
  for (std::size_t i = 0; i < cpu.mismatches.size(); ++i) {
    expect_same_mismatch(gpu.mismatches[i], cpu.mismatches[i]);
  }
  ASSERT_EQ(gpu.signals.size(), cpu.signals.size());
  for (std::size_t i = 0; i < cpu.signals.size(); ++i) {
    expect_same_signal(gpu.signals[i], cpu.signals[i]);
  }
  ASSERT_EQ(gpu.signal_group_norms.size(), cpu.signal_group_norms.size());
  for (std::size_t i = 0; i < cpu.signal_group_norms.size(); ++i) {
    EXPECT_NEAR(gpu.signal_group_norms[i], cpu.signal_group_norms[i],
                1e-6 * cpu.signal_group_norms[i]);
  }
}

// Two replicas of a model whose "up" is cut into columns over two ranks; "bias" is on all four and
// promises equal bits, "head" is a large tensor on all that does not.
struct Model {
  static constexpr std::uint64_t kRows = 300, kColumns = 140, kHead = 40001;

  explicit Model(std::uint32_t rank)
      : up(some_values(kRows * kColumns / 2, 1 + rank % 2)),
        head(some_values(kHead, 5)),
        bias(some_values(33, 6)) {}
  std::vector<float> up, head, bias;
};

std::vector<TensorShard> list_of(std::uint32_t rank, float* up, float* head, float* bias) {
  static const Mesh mesh({{"dp", 2}, {"tp", 2}});
  const MeshTensor tensors[] = {
      {"up", "body", {Model::kRows, Model::kColumns}, {split("tp", 1)}},
      {"head", "head", {Model::kHead}},
      {"bias", "body", {33}, {}, true},
  };
  return {*mesh.shard(tensors[0], rank, up, DType::kFloat32),
          *mesh.shard(tensors[1], rank, head, DType::kFloat32),
          *mesh.shard(tensors[2], rank, bias, DType::kFloat32)};
}

// The same in device memory.
struct OnDevice {
  explicit OnDevice(const Model& model) : up(model.up), head(model.head), bias(model.bias) {}
  std::vector<TensorShard> list(std::uint32_t rank) const {
    return list_of(rank, up.data(), head.data(), bias.data());
  }
  void put(const Model& model) {
    up.put(model.up);
    head.put(model.head);
    bias.put(model.bias);
  }
  DeviceFloats up, head, bias;
};

std::vector<TensorShard> host_list(std::uint32_t rank, Model& model) {
  return list_of(rank, model.up.data(), model.head.data(), model.bias.data());
}

struct Sinks {
  std::vector<KeepingSink> device = std::vector<KeepingSink>(4);
  std::vector<KeepingSink> host = std::vector<KeepingSink>(4);
};

// Twelve steps in which one rank's copies go astray one after the other.
void run(const GuardOptions& options, Sinks& sinks) {
  ThreadRanks threads(4);
  run_gpu_ranks(4, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    emulator::set_thread_order(emulator::Order::kShuffled);
    const auto rank = static_cast<std::uint32_t>(gpu.rank);
    Model g(rank), w(rank), m(rank);
    OnDevice dg(g), dw(w), dm(m);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard device({.guard = options}, ranks, &sinks.device[rank]);
    Guard host(options, threads.rank(gpu.rank), &sinks.host[rank]);
    const std::vector<TensorShard> moments[] = {dm.list(rank), host_list(rank, m)};
    const TensorList device_others[] = {{"moment", moments[0]}};
    const TensorList host_others[] = {{"moment", moments[1]}};
    device.bind({.gradients = dg.list(rank), .parameters = dw.list(rank), .others = device_others},
                gpu.stream);
    host.bind(
        {.gradients = host_list(rank, g), .parameters = host_list(rank, w), .others = host_others});
    for (std::uint64_t step = 1; step <= 12; ++step) {
      if (step == 4 && rank == 2) flip_lowest_bit(w.up[70 * 7 + 3]);
      if (step == 5 && rank == 1) std::swap(g.bias[2], g.bias[3]);
      if (step == 6 && rank == 3) g.head[30000] *= 1.0001F;  // within the tolerance
      if (step == 8 && rank == 3) g.head[30000] = 500;       // and not
      if (step == 9 && rank == 0) m.head[9] = std::numeric_limits<float>::quiet_NaN();
      dg.put(g);
      dw.put(w);
      dm.put(m);
      ASSERT_EQ(device.step({.step = step}, gpu.stream), DeviceStatus::kOk) << device.last_error();
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      host.step({.step = step});
    }
  });
  for (std::size_t rank = 0; rank < 4; ++rank) {
    SCOPED_TRACE(rank);
    ASSERT_EQ(sinks.device[rank].records().size(), 12U);
    EXPECT_EQ(sinks.device[rank].shape().signals, sinks.host[rank].shape().signals);
    for (std::size_t i = 0; i < 12; ++i) {
      SCOPED_TRACE(i + 1);
      expect_same_record(sinks.device[rank].records()[i], sinks.host[rank].records()[i]);
    }
  }
}

std::vector<std::uint64_t> steps_of(const KeepingSink& sink, bool (*wanted)(const KeptRecord&)) {
  std::vector<std::uint64_t> steps;
  for (const KeptRecord& kept : sink.records()) {
    if (wanted(kept)) steps.push_back(kept.record.step);
  }
  return steps;
}

std::vector<std::uint64_t> audits(const KeepingSink& sink) {
  return steps_of(sink, [](const KeptRecord& kept) { return kept.record.audited_replicas != 0; });
}

std::vector<std::uint64_t> observations(const KeepingSink& sink) {
  return steps_of(sink, [](const KeptRecord& kept) { return !kept.signals.empty(); });
}

TEST(DeviceGuardInspection, FindsTheMismatchesAndSignalsThatTheHostFinds) {
  GRADWARDEN_NEEDS_GPUS(4);
  Sinks sinks;
  run({.max_norm = 10, .audit_every = 2, .observe_others_every = 3}, sinks);
  EXPECT_THAT(audits(sinks.device[1]), ElementsAre(2, 4, 6, 8, 10, 12));
  EXPECT_THAT(observations(sinks.device[1]), ElementsAre(3, 6, 9, 12));
  const auto& records = sinks.device[3].records();
  EXPECT_TRUE(records[1].mismatches.empty());
  ASSERT_EQ(records[3].mismatches.size(), 1U);
  EXPECT_EQ(records[3].mismatches[0].signal, 1U) << "a parameter";
  EXPECT_EQ(records[5].mismatches.size(), 2U) << "and a gradient that promised equal bits";
  EXPECT_EQ(records[7].mismatches.size(), 3U) << "and one beyond the tolerance";
  EXPECT_EQ(records[8].signals[1].nan_count, 1U) << "of four replicas one, rounded up";
}

TEST(DeviceGuardInspection, FindsThemWithEveryNormTypeAndBesideAdaptiveClipping) {
  GRADWARDEN_NEEDS_GPUS(4);
  for (const double p : {1.0, kInfinity}) {
    SCOPED_TRACE(p);
    Sinks sinks;
    run({.norm_type = p,
         .adaptive_clip = 0.01,
         .audit_every = 4,
         .observe_others_every = 4,
         .flight_recorder = false},
        sinks);
    EXPECT_THAT(audits(sinks.device[0]), ElementsAre(4, 8, 12));
    EXPECT_THAT(observations(sinks.device[0]), ElementsAre(4, 8, 12));
  }
}

TEST(DeviceGuardInspection, IsAskedForBetweenReplaysAndComesWithTheNextRecord) {
  GRADWARDEN_NEEDS_GPUS(2);
  std::vector<KeepingSink> sinks(2);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    std::vector<float> values = some_values(100, 3);
    DeviceFloats gradient(values), parameter(values);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({.guard = {.audit_every = 1}}, ranks,
                      &sinks[static_cast<std::size_t>(gpu.rank)]);
    guard.bind({.gradients = std::vector{shard_of("w", gradient)},
                .parameters = std::vector{shard_of("w", parameter)}},
               gpu.stream);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(gpu.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    EXPECT_EQ(guard.inspect(gpu.stream), DeviceStatus::kCapturing);
    ASSERT_EQ(cudaStreamEndCapture(gpu.stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    for (int i = 1; i <= 6; ++i) {
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      if (i == 4 && gpu.rank == 1) {
        flip_lowest_bit(values[7]);
        parameter.put(values);
      }
      if (i % 2 == 0) {
        ASSERT_EQ(guard.inspect(gpu.stream), DeviceStatus::kOk);
      }
      ASSERT_EQ(cudaGraphLaunch(replay, gpu.stream), cudaSuccess);
    }
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  });
  for (const KeepingSink& sink : sinks) {
    ASSERT_EQ(sink.records().size(), 6U);
    EXPECT_THAT(audits(sink), ElementsAre(2, 4, 6));
    EXPECT_TRUE(sink.records()[1].mismatches.empty());
    ASSERT_EQ(sink.records()[3].mismatches.size(), 1U);
    EXPECT_EQ(sink.records()[3].mismatches[0].signal, 1U);
  }
}

TEST(DeviceGuardInspection, IsRefusedWhereNoOptionAsksForOne) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient({1.0F});
    DeviceGuard guard({});
    EXPECT_EQ(guard.inspect(gpu.stream), DeviceStatus::kNotBound);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    EXPECT_EQ(guard.inspect(gpu.stream), DeviceStatus::kInvalidArgument);
  });
}

// Statistics, fold, digest, seal and deliver: whichever is not launched on one rank, no rank
// compares what was not taken, none hangs, and the next audit is whole again.
TEST(DeviceGuardInspection, ALaunchThatFailsOnOneRankCostsThatInspectionAlone) {
  if (emulator::on_hardware()) GTEST_SKIP() << "no failures are injected into hardware";
  for (std::uint64_t nth = 1; nth <= 5; ++nth) {
    SCOPED_TRACE(nth);
    std::vector<KeepingSink> sinks(2);
    std::barrier both(2);
    run_gpu_ranks(2, [&](GpuRank& gpu) {
      DeviceFloats gradient(some_values(100, 3));
      NcclRanks ranks(gpu.communicator, gpu.stream);
      DeviceGuard guard({.guard = {.audit_every = 1}}, ranks,
                        &sinks[static_cast<std::size_t>(gpu.rank)]);
      guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      for (std::uint64_t step = 1; step <= 3; ++step) {
        const bool fails = step == 2 && gpu.rank == 1;
        // What is left of an earlier step would differ.
        gradient.put(some_values(100, static_cast<std::uint32_t>(step)));
        if (gpu.rank == 0) both.arrive_and_wait();  // the n-th launch is to be rank 1's
        if (fails) emulator::fail_call("cudaLaunchKernel", nth, cudaErrorMemoryAllocation);
        const DeviceStatus status = guard.step({.step = step}, gpu.stream);
        EXPECT_EQ(status, fails ? DeviceStatus::kCudaError : DeviceStatus::kOk);
        if (gpu.rank == 1) both.arrive_and_wait();
        ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
        both.arrive_and_wait();
      }
    });
    for (const KeepingSink& sink : sinks) {
      for (const KeptRecord& kept : sink.records()) EXPECT_TRUE(kept.mismatches.empty());
      EXPECT_EQ(audits(sink).front(), 1U);
      EXPECT_EQ(audits(sink).back(), 3U);
    }
    EXPECT_EQ(audits(sinks[1]).size(), 2U) << "not of the step in which its launch failed";
  }
}

}  // namespace
}  // namespace gradwarden
