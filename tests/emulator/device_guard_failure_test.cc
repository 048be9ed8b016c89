// What goes wrong on a GPU or between them comes back as a status: nothing throws, waits, aborts
// the process, or hides the error from the trainer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <functional>
#include <limits>
#include <mutex>
#include <thread>

#include "gradwarden/device_guard.h"
#include "gradwarden/error.h"
#include "tests/emulator/gpu_ranks.h"
#include "tests/emulator/runtime/control.h"

namespace gradwarden {
namespace {

using namespace std::chrono_literals;
using emulator::DeviceFloats;
using emulator::fetch;
using emulator::GpuRank;
using emulator::KeepingSink;
using emulator::run_gpu_ranks;
using emulator::shard_of;
using emulator::some_values;

// How long an exchange may hang where the test lets one hang: it also bounds the exchanges of
// bind() before, which must not fail because the machine is slow.
constexpr auto kHangs = 3s;

bool eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (std::chrono::steady_clock::now() < deadline) {
    if (holds()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return false;
}

TEST(DeviceGuardFailure, ALaunchThatFailsIsAStatusAndNotThrown) {
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 1));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    for (std::uint64_t nth = 1; nth <= 4; ++nth) {
      emulator::fail_call("cudaLaunchKernel", nth, cudaErrorMemoryAllocation);
      EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kCudaError) << nth;
      EXPECT_THAT(guard.last_error(), testing::HasSubstr("cudaErrorMemoryAllocation"));
    }
    EXPECT_EQ(emulator::runtime_counters().calls["cudaGetLastError"], 0U) << "it is the trainer's";
    EXPECT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk) << "the guard goes on";
    StepOutcome outcome;
    EXPECT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
  });
}

TEST(DeviceGuardFailure, ACollectiveThatFailsAtTheCallIsAStatus) {
  run_gpu_ranks(2, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 2));
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    emulator::fail_collective(gpu.rank, ncclSystemError);
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kCollectiveError);
    EXPECT_THAT(guard.last_error(), testing::HasSubstr("gathering the summaries"));
    EXPECT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
  });
}

TEST(DeviceGuardFailure, AnAsynchronousErrorOfABorrowedCommunicatorIsSeenAndNotAborted) {
  run_gpu_ranks(2, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 3));
    KeepingSink sink;
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks, &sink);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    emulator::set_async_error(gpu.communicator, ncclRemoteError);
    EXPECT_TRUE(eventually([&] { return guard.health() == DeviceStatus::kCollectiveError; }));
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kCollectiveError);
    EXPECT_EQ(emulator::runtime_counters().calls["ncclCommAbort"], 0U);
  });
}

TEST(DeviceGuardFailure, AStallOnABorrowedCommunicatorIsReportedAndNeitherWaitedForNorAborted) {
  std::barrier both_looked(2);
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 4));
    NcclRanks ranks(gpu.communicator, gpu.stream, {.timeout = kHangs});
    DeviceGuard guard({}, ranks);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    if (gpu.rank == 0) emulator::stall_collective(0);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk) << "enqueued, not waited for";
    EXPECT_TRUE(eventually([&] { return guard.health() == DeviceStatus::kCollectiveTimeout; }));
    EXPECT_THAT(guard.last_error(), testing::HasSubstr("left alone"));
    EXPECT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk)
        << "it keeps its place in the order of the communicator's calls";
    StepOutcome outcome;
    EXPECT_EQ(guard.wait(&outcome, 50ms), DeviceStatus::kTimeout);
    EXPECT_EQ(emulator::runtime_counters().calls["ncclCommAbort"], 0U);
    both_looked.arrive_and_wait();
    ncclCommAbort(gpu.communicator);  // the trainer's decision
    EXPECT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
  });
}

TEST(DeviceGuardFailure, AStallOnAnOwnCommunicatorEndsByAbortAndTheStepIsSkipped) {
  NcclUniqueId id;
  std::once_flag once;
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    std::call_once(once, [&] { id = NcclRanks::unique_id(); });
    DeviceFloats gradient(some_values(100, 5));
    const std::vector<float> before = gradient.get();
    KeepingSink sink;
    {
      NcclRanks ranks(id, gpu.rank, gpu.size, gpu.stream, {.timeout = kHangs});
      DeviceGuard guard({.guard = {.max_norm = 0.001}}, ranks, &sink);
      guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
      EXPECT_EQ(outcome.decision, Decision::kClip);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      gradient.put(before);
      if (gpu.rank == 1) emulator::stall_collective(1);
      ASSERT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kOk);
      ASSERT_EQ(guard.wait(&outcome, 30s), DeviceStatus::kOk) << "the abort let the stream go on";
      EXPECT_EQ(outcome.decision, Decision::kSkip);
      EXPECT_EQ(outcome.reason, Reason::kCollectiveFailed);
      ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
      EXPECT_EQ(gradient.get(), before);
      EXPECT_EQ(fetch(guard.found_inf()), 1.0F);
      EXPECT_EQ(guard.health(), DeviceStatus::kCollectiveTimeout);
      EXPECT_EQ(guard.step({.step = 3}, gpu.stream), DeviceStatus::kCollectiveTimeout);
    }
    ASSERT_EQ(sink.records().size(), 2U);
    EXPECT_EQ(sink.records()[1].record.reason, Reason::kCollectiveFailed);
  });
}

TEST(DeviceGuardFailure, AStallInAnInspectionBetweenReplaysIsSeenAndAnOwnCommunicatorAborted) {
  NcclUniqueId id;
  std::once_flag once;
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    std::call_once(once, [&] { id = NcclRanks::unique_id(); });
    DeviceFloats gradient(some_values(100, 5));
    NcclRanks ranks(id, gpu.rank, gpu.size, gpu.stream, {.timeout = kHangs});
    DeviceGuard guard({.guard = {.audit_every = 1}}, ranks);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    if (gpu.rank == 1) emulator::stall_collective(1);
    ASSERT_EQ(guard.inspect(gpu.stream), DeviceStatus::kOk) << "enqueued, not waited for";
    EXPECT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess) << "the abort lets the stream go on";
    EXPECT_TRUE(eventually([&] { return guard.health() == DeviceStatus::kCollectiveTimeout; }));
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kCollectiveTimeout);
  });
}

TEST(DeviceGuardFailure, AnAsynchronousErrorOfAnOwnCommunicatorAbortsIt) {
  NcclUniqueId id;
  std::once_flag once;
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    std::call_once(once, [&] { id = NcclRanks::unique_id(); });
    DeviceFloats gradient(some_values(100, 11));
    NcclRanks ranks(id, gpu.rank, gpu.size, gpu.stream);
    DeviceGuard guard({}, ranks);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    emulator::set_async_error(gpu.rank, ncclRemoteError);
    EXPECT_TRUE(eventually([&] { return guard.health() == DeviceStatus::kCollectiveError; }));
    EXPECT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kCollectiveError);
    EXPECT_TRUE(
        eventually([] { return emulator::runtime_counters().calls["ncclCommAbort"] == 2; }));
  });
}

TEST(DeviceGuardFailure, ABorrowedCommunicatorThatDoesNotBlockIsWaitedForWhereItEnqueues) {
  ncclUniqueId id;
  std::once_flag once;
  run_gpu_ranks(2, [&](GpuRank& gpu) {
    std::call_once(once, [&] { EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess); });
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t communicator = nullptr;
    const ncclResult_t made =
        ncclCommInitRankConfig(&communicator, gpu.size, id, gpu.rank, &config);
    ASSERT_TRUE(made == ncclInProgress || made == ncclSuccess);
    ASSERT_TRUE(eventually([&] {
      ncclResult_t state = ncclInProgress;
      return ncclCommGetAsyncError(communicator, &state) == ncclSuccess && state == ncclSuccess;
    }));
    DeviceFloats gradient(some_values(100, 12));
    NcclRanks ranks(communicator, gpu.stream);
    DeviceGuard guard({}, ranks);
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    for (std::uint64_t step = 0; step < 5; ++step) {
      ASSERT_EQ(guard.step({.step = step}, gpu.stream), DeviceStatus::kOk) << guard.last_error();
      StepOutcome outcome;
      ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
      EXPECT_EQ(outcome.decision, Decision::kApply);
    }
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
  });
}

TEST(DeviceGuardFailure, UpdateSaysThatItIsBusyRatherThanWaitForAStreamThatStands) {
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats a(some_values(100, 13));
    DeviceFloats b(some_values(100, 14));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", a)}, {}, gpu.stream);
    std::atomic<bool> open{false};
    const auto hold = [](void* gate) {
      while (!*static_cast<std::atomic<bool>*>(gate)) std::this_thread::sleep_for(1ms);
    };
    ASSERT_EQ(cudaLaunchHostFunc(gpu.stream, hold, &open), cudaSuccess);
    int told = 0;
    DeviceStatus status = DeviceStatus::kOk;
    for (int i = 0; i < 20 && status == DeviceStatus::kOk; ++i) {
      void* const data[] = {i % 2 == 0 ? b.data() : a.data()};
      status = guard.update(data, gpu.stream);
      if (status == DeviceStatus::kOk) ++told;
    }
    EXPECT_EQ(status, DeviceStatus::kBusy);
    EXPECT_EQ(told, 8);
    open = true;
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    void* const last[] = {b.data()};
    EXPECT_EQ(guard.update(last, gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    const double norm = emulator::norm_of_values(b.get());
    EXPECT_NEAR(outcome.grad_norm, norm, 1e-6 * norm);
  });
}

TEST(DeviceGuardFailure, WaitNeverTakesAnEarlierDecisionForThatOfAStepWhoseApplyFailed) {
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 7));
    DeviceGuard guard({.guard = {.max_norm = 1e9}});
    guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
    StepOutcome outcome;
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    ASSERT_EQ(outcome.decision, Decision::kApply);
    ASSERT_EQ(cudaStreamSynchronize(gpu.stream), cudaSuccess);
    gradient.put(std::vector<float>(100, std::numeric_limits<float>::quiet_NaN()));
    emulator::fail_call("cudaLaunchKernel", 4, cudaErrorMemoryAllocation);
    EXPECT_EQ(guard.step({.step = 2}, gpu.stream), DeviceStatus::kCudaError);
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    EXPECT_EQ(outcome.decision, Decision::kSkip);
  });
}

TEST(DeviceGuardFailure, MovedGradientsThatCouldNotBeToldAreToldByTheNextUpdate) {
  run_gpu_ranks(1, [](GpuRank& gpu) {
    DeviceFloats before(some_values(100, 8));
    DeviceFloats moved(some_values(100, 9, 50));
    DeviceGuard guard({});
    guard.bind(std::vector{shard_of("w", before)}, {}, gpu.stream);
    void* const data[] = {moved.data()};
    emulator::fail_call("cudaMemcpyAsync", 1, cudaErrorMemoryAllocation);
    EXPECT_EQ(guard.update(data, gpu.stream), DeviceStatus::kCudaError);
    EXPECT_EQ(guard.update(data, gpu.stream), DeviceStatus::kOk);
    ASSERT_EQ(guard.step({.step = 1}, gpu.stream), DeviceStatus::kOk);
    StepOutcome outcome;
    ASSERT_EQ(guard.wait(&outcome), DeviceStatus::kOk);
    const double norm = emulator::norm_of_values(moved.get());
    EXPECT_NEAR(outcome.grad_norm, norm, 1e-6 * norm);
    void* const nothing[] = {nullptr};
    EXPECT_EQ(guard.update(nothing, gpu.stream), DeviceStatus::kInvalidArgument);
  });
}

TEST(DeviceGuardFailure, ASinkThatThrowsOnOneRankIsAnErrorOfBindOnAll) {
  struct Throwing : KeepingSink {
    void begin(const RunShape& shape) override {
      if (shape.rank == 1) throw Error("the history file cannot be written");
    }
  };
  run_gpu_ranks(2, [](GpuRank& gpu) {
    DeviceFloats gradient(some_values(100, 10));
    Throwing sink;
    NcclRanks ranks(gpu.communicator, gpu.stream);
    DeviceGuard guard({}, ranks, &sink);
    try {
      guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream);
      ADD_FAILURE() << "no error on rank " << gpu.rank;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("history file"));
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 1"));
    }
  });
}

TEST(DeviceGuardFailure, ARankThatNeverBindsIsAnErrorAfterTheTimeoutAndNoHang) {
  run_gpu_ranks(2, [](GpuRank& gpu) {
    if (gpu.rank == 1) return;
    DeviceFloats gradient(some_values(100, 6));
    NcclRanks ranks(gpu.communicator, gpu.stream, {.timeout = 100ms});
    DeviceGuard guard({}, ranks);
    EXPECT_THROW(guard.bind(std::vector{shard_of("w", gradient)}, {}, gpu.stream), Error);
    EXPECT_THAT(ranks.last_error(), testing::HasSubstr("waited in vain"));
    ncclCommAbort(gpu.communicator);
  });
}

TEST(DeviceGuardFailure, ARankThatNeverMakesTheOwnCommunicatorIsAnErrorAfterTheTimeout) {
  run_gpu_ranks(1, [](GpuRank& gpu) {
    const NcclUniqueId id = NcclRanks::unique_id();
    try {
      NcclRanks ranks(id, 0, 2, gpu.stream, {.timeout = 100ms});
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr("rank 0 of 2"));
    }
  });
}

}  // namespace
}  // namespace gradwarden
