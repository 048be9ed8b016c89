// The guard of GPU memory on one emulated GPU: what it computes, what it does to gradients, what it
// tells the optimizer, the host and the sink.
#include "gradwarden/device_guard.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

StepOutcome wait_for(DeviceGuard& guard) {
  StepOutcome outcome;
  EXPECT_EQ(guard.wait(&outcome), DeviceStatus::kOk) << guard.last_error();
  return outcome;
}

void synchronize(const GpuRank& gpu) { EXPECT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess); }

TEST(DeviceGuard, ClipsByTheNormOfAllTensorsAsTorchDoes) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const std::vector<float> a = some_values(70001, 1);
    const std::vector<float> b = some_values(333, 2);
    DeviceFloats da(a);
    DeviceFloats db(b);
    DeviceGuard guard({.guard = {.max_norm = 1.0}});
    guard.bind(std::vector{shard_of("a", da), shard_of("b", db)}, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    const StepOutcome outcome = wait_for(guard);
    const double norm = std::hypot(norm_of_values(a), norm_of_values(b));
    EXPECT_NEAR(outcome.grad_norm, norm, norm * 1e-6);
    EXPECT_EQ(outcome.decision, Decision::kClip);
    EXPECT_NEAR(outcome.clip_coefficient, 1.0 / (norm + 1e-6), 1e-9);
    synchronize(gpu);
    EXPECT_FLOAT_EQ(da.get()[70000], a[70000] * static_cast<float>(outcome.clip_coefficient));
    EXPECT_FLOAT_EQ(db.get()[7], b[7] * static_cast<float>(outcome.clip_coefficient));
    EXPECT_EQ(fetch(guard.found_inf()), 0.0F);
  });
}

TEST(DeviceGuard, LeavesGradientsOfASkippedStepAloneAndSetsFoundInfToExactlyOne) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    std::vector<float> values = some_values(5000, 3);
    values[4321] = kNan;
    DeviceFloats gradient(values);
    KeepingSink sink;
    {
      DeviceGuard guard({.guard = {.max_norm = 0.5}}, &sink);
      guard.bind(std::vector{shard_of("layer", gradient)}, {}, gpu.stream);
      ASSERT_EQ(guard.step({.step = 9}, gpu.stream), DeviceStatus::kOk);
      const StepOutcome outcome = wait_for(guard);
      EXPECT_EQ(outcome.decision, Decision::kSkip);
      EXPECT_EQ(outcome.reason, Reason::kNonFinite);
      EXPECT_FALSE(outcome.should_update());
      EXPECT_TRUE(std::isnan(outcome.grad_norm));
      synchronize(gpu);
      EXPECT_EQ(fetch(guard.found_inf()), 1.0F);
      const std::vector<float> after = gradient.get();
      EXPECT_EQ(0, std::memcmp(after.data(), values.data(), values.size() * sizeof(float)));
    }
    ASSERT_EQ(sink.records().size(), 1U);
    ASSERT_EQ(sink.records()[0].non_finite.size(), 1U);
    EXPECT_EQ(sink.records()[0].non_finite[0].index, 4321U);
    EXPECT_EQ(sink.shape().tensors[sink.records()[0].non_finite[0].tensor], "layer");
  });
}

TEST(DeviceGuard, LeavesScalingToOptimizersThatTakeGradScale) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const std::vector<float> values = some_values(4096, 4, 1000);
    DeviceFloats gradient(values);
    DeviceValue<float> scale(512);
    DeviceGuard guard({.guard = {.max_norm = 2.0}, .action = DeviceAction::kOptimizerScales});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    emulator::reset_runtime_counters();
    ASSERT_EQ(guard.step({.step = 1, .loss_scale_at = scale.at()}, gpu.stream), DeviceStatus::kOk);
    const StepOutcome outcome = wait_for(guard);
    synchronize(gpu);
    const double norm = norm_of_values(values) / 512;
    EXPECT_NEAR(outcome.grad_norm, norm, norm * 1e-6);
    EXPECT_FLOAT_EQ(fetch(guard.grad_scale()),
                    static_cast<float>(512 / (2.0 / (outcome.grad_norm + 1e-6))));
    EXPECT_EQ(fetch(guard.found_inf()), 0.0F);
    EXPECT_EQ(gradient.get(), values);
    if (!emulator::on_hardware()) {
      EXPECT_EQ(emulator::runtime_counters().kernel_launches, 3U);
      EXPECT_EQ(emulator::runtime_counters().bytes_written, 0U);
    }
  });
}

TEST(DeviceGuard, DividesOutTheLossScaleInTheClippingPass) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const std::vector<float> values = some_values(999, 5, 64);
    DeviceFloats gradient(values);
    DeviceGuard guard({.guard = {}});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 1, .loss_scale = 64.0}, gpu.stream), DeviceStatus::kOk);
    EXPECT_EQ(wait_for(guard).decision, Decision::kApply);
    synchronize(gpu);
    EXPECT_EQ(gradient.get()[500], values[500] / 64);
  });
}

TEST(DeviceGuard, HandsEveryRecordToTheSinkInOrderWithItsBatchesAndInputs) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats a(some_values(1000, 6));
    DeviceFloats b(some_values(500, 7));
    DeviceValue<float> loss(0.25F);
    KeepingSink sink;
    {
      DeviceGuard guard({.guard = {.max_norm = 1e9}}, &sink);
      guard.bind(std::vector{shard_of("a", a, 0, 0, "first"), shard_of("b", b, 0, 0, "second")}, {},
                 gpu.stream);
      for (std::uint64_t step = 10; step < 40; ++step) {
        const std::string batch = "batch-" + std::to_string(step);
        const std::vector<std::string_view> ids{batch, "shard-3"};
        ASSERT_EQ(
            guard.step({.step = step, .loss_at = loss.at(), .learning_rate = 0.5, .batch_ids = ids},
                       gpu.stream),
            DeviceStatus::kOk);
      }
      wait_for(guard);
      EXPECT_EQ(guard.lost_records(), 0U);
    }
    ASSERT_EQ(sink.records().size(), 30U);
    for (std::uint64_t i = 0; i < 30; ++i) {
      const emulator::KeptRecord& kept = sink.records()[i];
      EXPECT_EQ(kept.record.step, 10 + i);
      EXPECT_THAT(kept.batch_ids,
                  testing::ElementsAre("batch-" + std::to_string(10 + i), "shard-3"));
      EXPECT_EQ(kept.record.loss, 0.25);
      EXPECT_EQ(kept.record.learning_rate, 0.5);
      EXPECT_EQ(kept.record.element_count, 1500U);
      ASSERT_EQ(kept.group_norms.size(), 2U);
      EXPECT_NEAR(kept.record.grad_norm, std::hypot(kept.group_norms[0], kept.group_norms[1]),
                  1e-12);
    }
  });
}

TEST(DeviceGuard, ObservesLocalGradientsApartFromTheReducedOnes) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    std::vector<float> own = some_values(300, 8);
    own[17] = std::numeric_limits<float>::infinity();
    DeviceFloats reduced(some_values(300, 9));
    DeviceFloats local(own);
    KeepingSink sink;
    {
      DeviceGuard guard({}, &sink);
      guard.bind(std::vector{shard_of("w", reduced)}, std::vector{shard_of("w", local)},
                 gpu.stream);
      ASSERT_EQ(guard.observe_local(gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk);
      wait_for(guard);
    }
    ASSERT_EQ(sink.records().size(), 2U);
    ASSERT_EQ(sink.records()[0].non_finite.size(), 1U);
    EXPECT_TRUE(sink.records()[0].non_finite[0].local);
    EXPECT_EQ(sink.records()[0].non_finite[0].index, 17U);
    EXPECT_EQ(sink.records()[0].local_norms.size(), 1U);
    EXPECT_EQ(sink.records()[0].record.decision, Decision::kApply) << "the reduced one is finite";
    EXPECT_TRUE(sink.records()[1].local_norms.empty()) << "not observed in this step";
    EXPECT_TRUE(sink.records()[1].non_finite.empty());
  });
}

TEST(DeviceGuard, ReadsGradientsAtTheirNewAddressesAfterOneSmallCopy) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats first(some_values(100, 10));
    DeviceFloats stays(some_values(100, 11));
    const std::vector<float> moved_values = some_values(100, 12, 5);
    DeviceFloats moved(moved_values);
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("a", first), shard_of("b", stays)}, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    wait_for(guard);
    emulator::reset_runtime_counters();
    void* const same[] = {first.data(), stays.data()};
    ASSERT_EQ(guard.update(same, gpu.stream), DeviceStatus::kOk);
    EXPECT_EQ(emulator::runtime_counters().async_copies, 0U);
    void* const now[] = {moved.data(), stays.data()};
    ASSERT_EQ(guard.update(now, gpu.stream), DeviceStatus::kOk);
    if (!emulator::on_hardware()) {
      EXPECT_EQ(emulator::runtime_counters().async_copies, 1U);
      EXPECT_EQ(emulator::runtime_counters().synchronisations(), 0U);
    }
    ASSERT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk);
    const double norm = std::hypot(norm_of_values(moved_values), norm_of_values(stays.get()));
    EXPECT_NEAR(wait_for(guard).grad_norm, norm, norm * 1e-6);
    EXPECT_EQ(guard.update({now, 1}, gpu.stream), DeviceStatus::kInvalidArgument);
  });
}

TEST(DeviceGuard, KeepsItsWindowWhenBoundAgain) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(std::vector<float>(64, 1.0F));
    DeviceGuard guard({.guard = {.skip_above_rolling_mean = 3, .window = 10, .warmup = 5}});
    for (int round = 0; round < 2; ++round) {
      guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      for (std::uint64_t step = 0; step < 4; ++step) {
        ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
        EXPECT_EQ(wait_for(guard).decision, Decision::kApply);
      }
    }
    gradient.put(std::vector<float>(64, 10.0F));
    ASSERT_EQ(guard.step({.step = 8}, gpu.stream), DeviceStatus::kOk);
    EXPECT_EQ(wait_for(guard).reason, Reason::kRollingMean) << "8 steps are in the window";
  });
}

TEST(DeviceGuard, HandsOnTheRecordsOfStepsThatAreUnderWayWhenItIsBoundAgain) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    for (const cudaStream_t stream : {gpu.stream, cudaStream_t{nullptr}}) {  // the default one too
      DeviceFloats gradient(some_values(64, 15));
      KeepingSink sink;
      {
        DeviceGuard guard({}, &sink);
        for (int binding = 0; binding < 3; ++binding) {
          guard.bind(std::vector{shard_of("w", gradient)}, {}, stream);
          for (std::uint64_t step = 0; step < 10; ++step) {
            ASSERT_EQ(guard.step({.step = step}, stream), DeviceStatus::kOk);
          }
        }
        StepOutcome outcome;
        ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
        EXPECT_EQ(guard.lost_records(), 0U);
      }
      EXPECT_EQ(sink.records().size(), 30U);
    }
  });
}

TEST(DeviceGuard, ResumesWithASavedStateOfItsOwnOrOfTheHostsGuard) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const GuardOptions options{.skip_above_rolling_mean = 3, .window = 10, .warmup = 5};
    DeviceFloats gradient(std::vector<float>(64, 1.0F));
    std::vector<float> on_host(64, 1.0F);
    SingleRank single;
    Guard host(options, single);
    host.bind(std::vector{TensorShard{"w", "", on_host.data(), on_host.size()}});
    DeviceGuard first({.guard = options});
    first.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    for (std::uint64_t step = 0; step < 7; ++step) {
      ASSERT_EQ(first.step({.step = step}, gpu.stream), DeviceStatus::kOk);
      host.step({.step = step});
    }
    const std::vector<std::byte> saved = first.save_state(gpu.stream);
    EXPECT_EQ(saved, host.save_state());
    gradient.put(std::vector<float>(64, 10.0F));
    for (const bool before_bind : {true, false}) {
      DeviceGuard resumed({.guard = options});
      if (before_bind) resumed.restore_state(saved, gpu.stream);
      resumed.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      if (!before_bind) resumed.restore_state(saved, gpu.stream);
      ASSERT_EQ(resumed.step({.step = 8}, gpu.stream), DeviceStatus::kOk);
      EXPECT_EQ(wait_for(resumed).reason, Reason::kRollingMean);
    }
  });
}

TEST(DeviceGuard, InShadowModeReportsTheDecisionAndChangesNothing) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const std::vector<float> values = some_values(128, 13, 100);
    DeviceFloats gradient(values);
    DeviceGuard guard({.guard = {.max_norm = 1, .shadow = true}});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    const StepOutcome outcome = wait_for(guard);
    EXPECT_EQ(outcome.decision, Decision::kClip);
    EXPECT_TRUE(outcome.should_update());
    synchronize(gpu);
    EXPECT_EQ(gradient.get(), values);
  });
}

TEST(DeviceGuard, RefusesAtBindMemoryThatTheDeviceDoesNotReach) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    std::vector<float> host(16);
    TensorShard shard;
    shard.name = "layer.weight";
    shard.data = host.data();
    shard.count = host.size();
    DeviceGuard guard({});
    try {
      guard.bind(std::vector{shard}, {}, gpu.stream);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("layer.weight"));
      EXPECT_THAT(error.what(), testing::HasSubstr("host memory"));
    }
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kNotBound);
    EXPECT_EQ(guard.found_inf(), nullptr);
  });
}

TEST(DeviceGuard, SaysThatADecisionDidNotComeInTime) {
  GRADWARDEN_NEEDS_GPUS(1);
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(16, 14));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    guard.expect_replay(1, gpu.stream);  // which never comes
    StepOutcome outcome;
    EXPECT_EQ(guard.wait(&outcome, std::chrono::milliseconds(30)), DeviceStatus::kTimeout);
  });
}

}  // namespace
}  // namespace gradwarden
