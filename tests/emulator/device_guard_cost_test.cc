// What a step costs, from the counters of the emulated runtime: launches, collectives, copies,
// waits, allocations, and bytes of gradient memory. None of it grows with the number of tensors.
// The counts are printed as a table; they are counts, not times, and no GPU is measured.
#include <gtest/gtest.h>

#include <barrier>
#include <cstdio>

#include "gradwarden/device_guard.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using emulator::DeviceFloats;
using emulator::GpuRank;
using emulator::run_gpu_ranks;
using emulator::RuntimeCounters;
using emulator::shard_of;
using emulator::some_values;

enum class Step { kHealthy, kClips, kSkips };

struct Case {
  std::size_t tensors;
  std::size_t elements;  // of each
  Step step;
};

const char* name_of(Step step) {
  return step == Step::kHealthy ? "healthy" : step == Step::kClips ? "clips" : "skips";
}

GuardOptions options_for(Step step) {
  GuardOptions options;
  options.max_norm = step == Step::kClips ? 0.125 : 1e9;
  options.skip_above = step == Step::kSkips ? 0.125 : 0;
  return options;
}

// Gradients of one buffer, each tensor a stretch of it at a 16-byte boundary, as trainers lay them
// out.
std::vector<TensorShard> cut(const DeviceFloats& buffer, const Case& c) {
  std::vector<TensorShard> shards;
  for (std::size_t i = 0; i < c.tensors; ++i) {
    TensorShard shard;
    shard.name = "tensor" + std::to_string(i);
    shard.group = "group" + std::to_string(i % 12);
    shard.data = buffer.data() + i * c.elements;
    shard.count = c.elements;
    shards.push_back(shard);
  }
  return shards;
}

// Of one step of one rank of one.
RuntimeCounters count_step(const Case& c) {
  RuntimeCounters counters;
  run_gpu_ranks(1, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    DeviceFloats gradients(some_values(c.tensors * c.elements, 1));
    DeviceGuard guard({.guard = options_for(c.step)});
    guard.bind(cut(gradients, c), {}, gpu.stream);
    emulator::reset_runtime_counters();
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    counters = emulator::runtime_counters();  // before the stream is waited for by the test
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    const RuntimeCounters after = emulator::runtime_counters();
    counters.bytes_read = after.bytes_read;
    counters.bytes_written = after.bytes_written;
  });
  return counters;
}

class DeviceGuardCost : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(
    Tensors, DeviceGuardCost,
    testing::Values(Case{1, 740000, Step::kHealthy}, Case{1, 740000, Step::kClips},
                    Case{1, 740000, Step::kSkips}, Case{148, 5000, Step::kHealthy},
                    Case{148, 5000, Step::kClips}, Case{148, 5000, Step::kSkips},
                    Case{10000, 76, Step::kHealthy}, Case{10000, 76, Step::kClips},
                    Case{10000, 76, Step::kSkips}),
    [](const auto& info) { return std::to_string(info.param.tensors) + name_of(info.param.step); });

TEST_P(DeviceGuardCost, IsFourLaunchesAndNoCopyWaitOrAllocationWhateverTheNumberOfTensors) {
  const Case c = GetParam();
  const RuntimeCounters n = count_step(c);
  const double bytes = static_cast<double>(c.tensors * c.elements * sizeof(float));
  const double read = static_cast<double>(n.bytes_read) / bytes;
  const double written = static_cast<double>(n.bytes_written) / bytes;
  std::printf(
      "%6zu tensors, %-7s: %llu launches, %llu collectives, %llu copies, %llu waits, %llu "
      "allocations, gradients read %.2f x, written %.2f x\n",
      c.tensors, name_of(c.step), static_cast<unsigned long long>(n.kernel_launches),
      static_cast<unsigned long long>(n.collectives),
      static_cast<unsigned long long>(n.async_copies),
      static_cast<unsigned long long>(n.synchronisations()),
      static_cast<unsigned long long>(n.allocations), read, written);
  EXPECT_EQ(n.kernel_launches, 4U);
  EXPECT_EQ(n.collectives, 0U) << "one rank";
  EXPECT_EQ(n.async_copies, 0U);
  EXPECT_EQ(n.memsets, 0U);
  EXPECT_EQ(n.host_functions, 0U);
  EXPECT_EQ(n.event_records, 0U);
  EXPECT_EQ(n.allocations, 0U);
  EXPECT_EQ(n.frees, 0U);
  EXPECT_TRUE(n.blocking_calls.empty()) << n.blocking_calls.begin()->first;
  EXPECT_EQ(read, c.step == Step::kClips ? 2.0 : 1.0);
  EXPECT_EQ(written, c.step == Step::kClips ? 1.0 : 0.0);
}

TEST(DeviceGuardCost, IsOneCollectivePerRankAndStepBesideThat) {
  constexpr int kRanks = 4;
  constexpr std::uint64_t kSteps = 3;
  RuntimeCounters before;
  RuntimeCounters after;
  std::barrier all_here(kRanks);
  run_gpu_ranks(kRanks, [&](GpuRank& gpu) {
    const Case c{148, 500, Step::kHealthy};
    DeviceFloats gradients(some_values(c.tensors * c.elements, 1));
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({.guard = options_for(c.step)}, ranks);
    guard.bind(cut(gradients, c), {}, gpu.stream);
    all_here.arrive_and_wait();  // all have bound
    if (gpu.rank == 0) before = emulator::runtime_counters();
    all_here.arrive_and_wait();
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
    }
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    all_here.arrive_and_wait();
    if (gpu.rank == 0) after = emulator::runtime_counters();
    all_here.arrive_and_wait();
  });
  EXPECT_EQ(after.collectives - before.collectives, kRanks * kSteps);
  EXPECT_EQ(after.kernel_launches - before.kernel_launches, kRanks * kSteps * 4);
  EXPECT_EQ(after.allocations, before.allocations);
}

TEST(DeviceGuardCost, OfObservingLocalGradientsIsTwoLaunchesAndOneReadMore) {
  RuntimeCounters counters;
  run_gpu_ranks(1, [&](GpuRank& gpu) {
    const Case c{148, 500, Step::kHealthy};
    DeviceFloats reduced(some_values(c.tensors * c.elements, 1));
    DeviceFloats local(some_values(c.tensors * c.elements, 2));
    DeviceGuard guard({.guard = options_for(c.step)});
    guard.bind(cut(reduced, c), cut(local, c), gpu.stream);
    emulator::reset_runtime_counters();
    ASSERT_EQ(guard.observe_local(gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    counters = emulator::runtime_counters();
    EXPECT_EQ(counters.bytes_read, local.size() * sizeof(float));
  });
  EXPECT_EQ(counters.kernel_launches, 2U);
  EXPECT_EQ(counters.async_copies, 0U);
  EXPECT_EQ(counters.bytes_written, 0U);
}

// Launches, collectives and bytes of one rank's next step, with what the options ask for.
struct StepCost {
  std::uint64_t launches = 0;
  std::uint64_t collectives = 0;
  std::uint64_t memsets = 0;
  double lists_read = 0;  // in lists of gradients
  std::uint64_t waits_and_allocations = 0;
};

StepCost cost_since(const RuntimeCounters& before, const RuntimeCounters& after,
                    std::size_t bytes) {
  StepCost cost;
  cost.launches = after.kernel_launches - before.kernel_launches;
  cost.collectives = after.collectives - before.collectives;
  cost.memsets = after.memsets - before.memsets;
  cost.lists_read =
      static_cast<double>(after.bytes_read - before.bytes_read) / static_cast<double>(bytes);
  cost.waits_and_allocations = after.synchronisations() - before.synchronisations() +
                               after.allocations - before.allocations + after.frees - before.frees;
  return cost;
}

// Of steps 1 and 2 of two ranks, both ranks together, of a model of gradients, parameters and
// moments that is on both.
std::vector<StepCost> cost_of_two_steps(const GuardOptions& options) {
  const Case c{40, 500, Step::kHealthy};
  std::vector<StepCost> costs;
  RuntimeCounters before;
  std::barrier both(2);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    emulator::set_delays(0);
    const std::vector<float> values = some_values(c.tensors * c.elements, 1);
    DeviceFloats gradients(values), parameters(values), moments(values);
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({.guard = options}, ranks);
    const std::vector<TensorShard> moment_shards = cut(moments, c);
    const TensorList others[] = {{"moment", moment_shards}};
    guard.bind({.gradients = cut(gradients, c), .parameters = cut(parameters, c), .others = others},
               gpu.stream);
    for (std::uint64_t step = 1; step <= 2; ++step) {
      both.arrive_and_wait();
      if (gpu.rank == 0) before = emulator::runtime_counters();
      both.arrive_and_wait();
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk);
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);  // makes no call that is counted
      both.arrive_and_wait();
      if (gpu.rank == 0) {
        const RuntimeCounters after = emulator::runtime_counters();
        costs.push_back(cost_since(before, after, 2 * values.size() * sizeof(float)));
      }
    }
    both.arrive_and_wait();
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
  });
  return costs;
}

void expect_cost(const StepCost& cost, std::uint64_t launches, std::uint64_t collectives,
                 double lists_read) {
  EXPECT_EQ(cost.launches, 2 * launches);
  EXPECT_EQ(cost.collectives, 2 * collectives);
  EXPECT_EQ(cost.lists_read, lists_read);
  EXPECT_EQ(cost.waits_and_allocations, 0U);
}

TEST(DeviceGuardCost, OfAdaptiveClippingIsTwoLaunchesAndAReadOfTheParametersMore) {
  for (const StepCost& cost : cost_of_two_steps({.adaptive_clip = 1e9})) {
    expect_cost(cost, 6, 1, 2);
  }
}

TEST(DeviceGuardCost, OfTheFlightRecorderIsNoLaunch) {
  for (const bool on : {false, true}) {
    for (const StepCost& cost : cost_of_two_steps({.flight_recorder = on})) {
      expect_cost(cost, 4, 1, 1);
    }
  }
}

TEST(DeviceGuardCost, OfAnInspectionIsPaidInTheStepsThatInspectAlone) {
  // Statistics and fold of the parameters, a digest of each of the two lists, seal, deliver.
  const std::vector<StepCost> audit = cost_of_two_steps({.audit_every = 2});
  expect_cost(audit[0], 4, 1, 1);
  expect_cost(audit[1], 4 + 2 + 2 + 2, 2, 4);
  EXPECT_EQ(audit[1].memsets, 2U) << "of the digests, one on each rank";
  // Statistics and fold of parameters and moments, seal, deliver.
  const std::vector<StepCost> signals = cost_of_two_steps({.observe_others_every = 2});
  expect_cost(signals[0], 4, 1, 1);
  expect_cost(signals[1], 4 + 4 + 2, 2, 3);
  // Beside adaptive clipping, which reads the parameters anyway.
  const GuardOptions all{.adaptive_clip = 1e9, .audit_every = 2, .observe_others_every = 2};
  const std::vector<StepCost> both = cost_of_two_steps(all);
  expect_cost(both[0], 6, 1, 2);
  expect_cost(both[1], 6 + 2 + 2 + 2, 2, 5);
}

}  // namespace
}  // namespace gradwarden
