// The flight recorder of gradients in GPU memory: what kernels leave in pinned memory, against the
// host's recorder on the same data, while they go on, and after the context broke.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <thread>

#include "client/guard/cuda/flight_reader.h"
#include "gradwarden/device_guard.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::GpuRank;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void expect_same(const FlightRecording& gpu, const FlightRecording& cpu) {
  ASSERT_EQ(gpu.tensors.size(), cpu.tensors.size());
  for (std::size_t i = 0; i < cpu.tensors.size(); ++i) {
    EXPECT_EQ(gpu.tensors[i].tensor, cpu.tensors[i].tensor);
    EXPECT_EQ(gpu.tensors[i].index, cpu.tensors[i].index);
    EXPECT_EQ(gpu.tensors[i].count, cpu.tensors[i].count);
  }
  ASSERT_EQ(gpu.steps.size(), cpu.steps.size());
  for (std::size_t i = 0; i < cpu.steps.size(); ++i) {
    EXPECT_EQ(gpu.steps[i].step, cpu.steps[i].step);
    EXPECT_EQ(gpu.steps[i].decision, cpu.steps[i].decision);
    EXPECT_EQ(gpu.steps[i].reason, cpu.steps[i].reason);
    EXPECT_EQ(std::isnan(gpu.steps[i].grad_norm), std::isnan(cpu.steps[i].grad_norm));
  }
  ASSERT_EQ(gpu.entries.size(), cpu.entries.size());
  for (std::size_t i = 0; i < cpu.entries.size(); ++i) {
    EXPECT_NEAR(gpu.entries[i].norm, cpu.entries[i].norm, 1e-6 * cpu.entries[i].norm);
    EXPECT_EQ(gpu.entries[i].max_abs, cpu.entries[i].max_abs);
    EXPECT_EQ(gpu.entries[i].non_finite_count, cpu.entries[i].non_finite_count);
    EXPECT_EQ(gpu.entries[i].zero_count, cpu.entries[i].zero_count);
  }
}

// A sink with a thread of its own: the test's.
struct FlightSink final : StepSink {
  void begin(const RunShape&) override {}
  void submit(const StepRecord& record) noexcept override { last_step = record.step; }
  bool attach(StepSource& s) override {
    source = &s;
    return true;
  }
  void detach(StepSource&) override { source = nullptr; }
  StepSource* source = nullptr;
  std::uint64_t last_step = 0;
};

TEST(DeviceGuardFlight, HoldsWhatTheHostsRecorderHoldsOfTheLast64Steps) {
  GRADWARDEN_NEEDS_GPUS(1);
  for (const double p : {2.0, 3.0, kInfinity}) {
    SCOPED_TRACE(p);
    run_gpu_ranks(1, [p](GpuRank& gpu) {
      emulator::set_delays(0);
      const GuardOptions options{.max_norm = 40, .norm_type = p};
      std::vector<float> a(70001), b(31), c(5, 0.0F);
      DeviceFloats da(a), db(b), dc(c);
      FlightSink sink;
      SingleRank single;
      DeviceGuard device({.guard = options}, &sink);
      Guard host(options, single);
      device.bind(std::vector{shard_of("a", da), shard_of("b", db), shard_of("c", dc)}, {},
                  gpu.stream);
      host.bind(std::vector{TensorShard{"a", "", a.data(), a.size()},
                            TensorShard{"b", "", b.data(), b.size()},
                            TensorShard{"c", "", c.data(), c.size()}});
      EXPECT_TRUE(device.flight_recording().steps.empty());
      for (std::uint32_t step = 1; step <= 120; ++step) {
        if (step % 20 == 1) std::ranges::copy(some_values(a.size(), step), a.begin());
        std::ranges::copy(some_values(b.size(), step + 500), b.begin());
        if (step == 77) b[3] = std::numeric_limits<float>::quiet_NaN();
        da.put(a);
        db.put(b);
        ASSERT_EQ(device.step({.step = step}, gpu.stream), DeviceStatus::kOk);
        ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
        host.step({.step = step});
      }
      const FlightRecording found = device.flight_recording();
      ASSERT_EQ(found.steps.size(), 64U);
      EXPECT_EQ(found.steps.front().step, 57U);
      EXPECT_EQ(found.steps[20].decision, Decision::kSkip) << "step 77";
      expect_same(found, host.flight_recording());
      FlightRecording older;
      ASSERT_TRUE(sink.source->flight(100, older));
      EXPECT_EQ(older.steps.back().step, 100U);
      EXPECT_EQ(older.steps.size(), 64U) << "there are more slots than steps asked for";
      EXPECT_FALSE(sink.source->flight(20, older)) << "overwritten";
    });
  }
}

TEST(DeviceGuardFlight, AReaderSeesWholeStepsOnlyWhileTheDeviceGoesOn) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    emulator::set_delays(5);
    constexpr std::size_t kTensors = 6;
    std::vector<std::unique_ptr<DeviceFloats>> data;
    std::vector<TensorShard> shards;
    for (std::size_t i = 0; i < kTensors; ++i) {
      data.push_back(std::make_unique<DeviceFloats>(std::vector<float>(4, 0.0F)));
      shards.push_back(shard_of(std::to_string(i), *data.back()));
    }
    FlightSink sink;
    DeviceGuard guard({}, &sink);
    guard.bind(shards, {}, gpu.stream);
    std::atomic<bool> done{false};
    std::uint64_t seen = 0;
    std::thread reader([&] {
      FlightRecording found;
      for (bool last = false; !last;) {
        last = done;
        sink.source->drain(sink);
        if (!sink.source->flight(sink.last_step, found)) continue;
        for (std::size_t s = 0; s < found.steps.size(); ++s) {
          ++seen;
          for (std::size_t t = 0; t < kTensors; ++t) {
            const FlightEntry& entry = found.entries[s * kTensors + t];
            ASSERT_EQ(entry.max_abs, static_cast<float>(found.steps[s].step));
            ASSERT_EQ(entry.norm, 2.0 * static_cast<double>(found.steps[s].step));
          }
        }
      }
    });
    for (std::uint64_t step = 1; step <= 250; ++step) {
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      for (const auto& tensor : data) tensor->put(std::vector<float>(4, static_cast<float>(step)));
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
    }
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    done = true;
    reader.join();
    EXPECT_GE(seen, 64U);
  });
}

// Writes the ring as the kernels do, as fast as it can.
class RingWriter {
 public:
  RingWriter(const kernels::cuda::FlightRing& ring, std::size_t tensors,
             kernels::cuda::Progress& progress)
      : ring_(ring), tensors_(tensors), progress_(progress) {}

  // Every value is the number of the step.
  void write(std::uint64_t fold) {
    const std::uint64_t step = fold + 1;
    auto* header = reinterpret_cast<std::uint64_t*>(kernels::cuda::flight_slot(ring_, fold));
    for (std::size_t i = 0; i < tensors_; ++i) {
      kernels::cuda::FlightSums sums;
      sums.power_sum = static_cast<double>(step);
      sums.zero_count = step;
      store(sums, header + sizeof(kernels::cuda::FlightHeader) / 8 +
                      i * (sizeof(kernels::cuda::FlightSums) / 8));
    }
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::atomic_ref(progress_.folded).store(step, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_seq_cst);
    std::atomic_ref(header[1]).store(step, std::memory_order_relaxed);
    std::atomic_ref(header[0]).store(step, std::memory_order_release);
  }

 private:
  static void store(const kernels::cuda::FlightSums& sums, std::uint64_t* words) {
    std::uint64_t raw[sizeof sums / 8];
    std::memcpy(raw, &sums, sizeof sums);
    for (std::size_t i = 0; i < std::size(raw); ++i) {
      std::atomic_ref(words[i]).store(raw[i], std::memory_order_relaxed);
    }
  }

  const kernels::cuda::FlightRing ring_;
  const std::size_t tensors_;
  kernels::cuda::Progress& progress_;
};

TEST(DeviceGuardFlight, AReaderTakesNoSlotThatWasWrittenToMeanwhile) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank&) {
    const std::vector<guard::Segment> segments(300);
    kernels::cuda::Progress progress;
    guard::FlightReader reader;
    reader.build(segments, kInfinity, &progress);
    RingWriter writer(reader.ring(), segments.size(), progress);
    std::atomic<bool> done{false};
    std::thread device([&] {
      for (std::uint64_t fold = 0; !done; ++fold) writer.write(fold);
    });
    FlightRecording found;
    std::uint64_t rows = 0;
    std::uint64_t torn = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (rows < 20000 && std::chrono::steady_clock::now() < deadline) {
      if (!reader.read(nullptr, found)) continue;
      for (std::size_t s = 0; s < found.steps.size(); ++s, ++rows) {
        for (std::size_t i = 0; i < segments.size(); ++i) {
          const FlightEntry& entry = found.entries[s * segments.size() + i];
          const std::uint64_t step = found.steps[s].step;
          if (entry.zero_count != step || entry.norm != static_cast<double>(step)) ++torn;
        }
      }
    }
    done = true;
    device.join();
    EXPECT_GE(rows, 20000U);
    EXPECT_EQ(torn, 0U);
  });
}

TEST(DeviceGuardFlight, CanBeReadAfterTheContextBrokeAndWithoutACallOfCuda) {
  if (emulator::on_hardware()) GTEST_SKIP() << "no context is broken on hardware";
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(16, 3.0F));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    for (std::uint64_t step = 1; step <= 3; ++step) {
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
    }
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    void* const nowhere[] = {reinterpret_cast<void*>(64)};
    ASSERT_EQ(guard.update(nowhere, gpu.stream), DeviceStatus::kOk);
    static_cast<void>(guard.step({.step = 4}, gpu.stream));
    EXPECT_NE(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    EXPECT_FALSE(emulator::take_runtime_violations().empty()) << "as meant";
    emulator::reset_runtime_counters();
    const FlightRecording found = guard.flight_recording();
    EXPECT_TRUE(emulator::runtime_counters().calls.empty());
    ASSERT_EQ(found.steps.size(), 3U);
    EXPECT_EQ(found.steps.back().step, 3U);
    EXPECT_EQ(found.entries.back().norm, 12.0);
  });
}

TEST(DeviceGuardFlight, TakesNoMemoryWhereItIsOff) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(16, 3.0F));
    std::uint64_t pinned[2] = {};
    for (const bool on : {false, true}) {
      emulator::reset_runtime_counters();
      DeviceGuard guard({.guard = {.flight_recorder = on}});
      guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      pinned[on ? 1 : 0] = emulator::runtime_counters().calls["cudaHostAlloc"];
      ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      EXPECT_EQ(guard.flight_recording().steps.size(), on ? 1U : 0U);
    }
    if (!emulator::on_hardware()) {
      EXPECT_EQ(pinned[1], pinned[0] + 1);
    }
  });
}

}  // namespace
}  // namespace gradwarden
