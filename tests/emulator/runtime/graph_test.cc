// Capture and replay: what a graph holds, in which order it runs, and what is refused meanwhile.
#include <set>

#include "tests/emulator/runtime/runtime_fixture.h"

namespace gradwarden::emulator {
namespace {

class Graphs : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    stream_ = new_stream();
    value_ = device_array<unsigned char>(4);
  }
  void begin(cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal) const {
    ASSERT_CUDA(cudaStreamBeginCapture(stream_, mode));
  }
  cudaGraphExec_t end() const { return end(stream_); }
  static cudaGraphExec_t end(cudaStream_t stream) {
    cudaGraph_t graph = nullptr;
    EXPECT_CUDA(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec = nullptr;
    EXPECT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
    EXPECT_CUDA(cudaGraphDestroy(graph));
    return exec;
  }
  // The capture that was begun has been made invalid; ends it.
  void expect_invalidated() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    EXPECT_CUDA(cudaStreamIsCapturing(stream_, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusInvalidated);
    EXPECT_EQ(cudaMemsetAsync(value_, 0, 1, stream_), cudaErrorStreamCaptureInvalidated);
    expect_end(cudaErrorStreamCaptureInvalidated);
  }
  void expect_end(cudaError_t error) const {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), error);
    EXPECT_EQ(graph, nullptr);
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusActive;
    EXPECT_CUDA(cudaStreamIsCapturing(stream_, &status));
    EXPECT_EQ(status, cudaStreamCaptureStatusNone);
  }

  cudaStream_t stream_ = nullptr;
  unsigned char* value_ = nullptr;
};

TEST_F(Graphs, RunNothingDuringTheCaptureAndEverythingAtEachOfAThousandReplays) {
  int* const input = pinned_array<int>(1);
  int* const middle = device_array<int>(1);
  int* const output = pinned_array<int>(1);
  *input = 1;
  *output = 0;
  begin();
  ASSERT_CUDA(cudaMemcpyAsync(middle, input, sizeof(int), cudaMemcpyHostToDevice, stream_));
  ASSERT_CUDA(cudaMemcpyAsync(output, middle, sizeof(int), cudaMemcpyDeviceToHost, stream_));
  const cudaGraphExec_t exec = end();
  EXPECT_EQ(*output, 0);
  EXPECT_EQ(runtime_counters().async_copies, 0U);
  for (int i = 1; i <= 1000; ++i) {
    *input = i;
    ASSERT_CUDA(cudaGraphLaunch(exec, stream_));
    ASSERT_CUDA(cudaStreamSynchronize(stream_));
    ASSERT_EQ(*output, i);
  }
  const RuntimeCounters c = runtime_counters();
  EXPECT_EQ(c.graph_launches, 1000U);
  EXPECT_EQ(c.async_copies, 2000U);
  EXPECT_CUDA(cudaGraphExecDestroy(exec));
}

TEST_F(Graphs, KeepTheOrderOfForkAndJoin) {
  const cudaStream_t side = new_stream();
  const cudaEvent_t fork = new_event();
  const cudaEvent_t join = new_event();
  auto* const a = device_array<unsigned char>(4);
  auto* const b = device_array<unsigned char>(4);
  auto* const out = pinned_array<unsigned char>(8);
  begin();
  ASSERT_CUDA(cudaMemsetAsync(a, 1, 4, stream_));
  ASSERT_CUDA(cudaEventRecord(fork, stream_));
  ASSERT_CUDA(cudaStreamWaitEvent(side, fork, 0));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  ASSERT_CUDA(cudaStreamIsCapturing(side, &status));
  EXPECT_EQ(status, cudaStreamCaptureStatusActive);
  ASSERT_CUDA(cudaMemcpyAsync(b, a, 4, cudaMemcpyDeviceToDevice, side));
  ASSERT_CUDA(cudaEventRecord(join, side));
  ASSERT_CUDA(cudaMemcpyAsync(out, a, 4, cudaMemcpyDeviceToHost, stream_));
  ASSERT_CUDA(cudaStreamWaitEvent(stream_, join, 0));
  ASSERT_CUDA(cudaMemcpyAsync(out + 4, b, 4, cudaMemcpyDeviceToHost, stream_));
  ASSERT_CUDA(cudaMemsetAsync(a, 2, 4, stream_));
  ASSERT_CUDA(cudaMemsetAsync(b, 2, 4, stream_));
  const cudaGraphExec_t exec = end();
  for (int i = 0; i < 100; ++i) {
    ASSERT_CUDA(cudaGraphLaunch(exec, stream_));
    ASSERT_CUDA(cudaStreamSynchronize(stream_));
    ASSERT_EQ(out[0], 1);
    ASSERT_EQ(out[4], 1);
  }
}

TEST_F(Graphs, RunBranchesThatNothingOrdersInEitherOrder) {
  const cudaStream_t side = new_stream();
  const cudaEvent_t fork = new_event();
  const cudaEvent_t join = new_event();
  auto* const value = pinned_array<unsigned char>(1);
  begin();
  ASSERT_CUDA(cudaEventRecord(fork, stream_));
  ASSERT_CUDA(cudaStreamWaitEvent(side, fork, 0));
  ASSERT_CUDA(cudaMemsetAsync(value, 1, 1, stream_));
  ASSERT_CUDA(cudaMemsetAsync(value, 2, 1, side));
  ASSERT_CUDA(cudaEventRecord(join, side));
  ASSERT_CUDA(cudaStreamWaitEvent(stream_, join, 0));
  const cudaGraphExec_t exec = end();
  std::set<int> seen;
  for (int i = 0; i < 100; ++i) {
    ASSERT_CUDA(cudaGraphLaunch(exec, stream_));
    ASSERT_CUDA(cudaStreamSynchronize(stream_));
    seen.insert(*value);
  }
  EXPECT_EQ(seen, (std::set<int>{1, 2}));
}

TEST_F(Graphs, RunTheirLaunchesOneAfterTheOtherOnAnyStream) {
  auto* const counter = pinned_array<int>(1);
  *counter = 0;
  begin();
  ASSERT_CUDA(cudaLaunchHostFunc(
      stream_, [](void* at) { ++*static_cast<int*>(at); }, counter));
  const cudaGraphExec_t exec = end();
  const cudaStream_t other = new_stream();
  for (int i = 0; i < 200; ++i) ASSERT_CUDA(cudaGraphLaunch(exec, i % 2 == 0 ? stream_ : other));
  ASSERT_CUDA(cudaDeviceSynchronize());
  EXPECT_EQ(*counter, 200);
  EXPECT_EQ(runtime_counters().host_functions, 200U);
}

TEST_F(Graphs, HoldCollectivesThatMeetAtEachReplay) {
  constexpr int kRanks = 4;
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  run_ranks(kRanks, [&](int rank) {
    ncclComm_t communicator = nullptr;
    EXPECT_NCCL(ncclCommInitRank(&communicator, kRanks, id, rank));
    const cudaStream_t stream = new_stream();
    auto* const mine = pinned_array<std::int64_t>(1);
    auto* const all = pinned_array<std::int64_t>(kRanks);
    auto* const sum = pinned_array<std::int64_t>(1);
    EXPECT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    EXPECT_NCCL(ncclGroupStart());
    EXPECT_NCCL(ncclAllGather(mine, all, 1, ncclInt64, communicator, stream));
    EXPECT_NCCL(ncclAllReduce(mine, sum, 1, ncclInt64, ncclSum, communicator, stream));
    EXPECT_NCCL(ncclGroupEnd());
    const cudaGraphExec_t exec = end(stream);
    for (int i = 0; i < 200; ++i) {
      *mine = 100 * rank + i;
      EXPECT_CUDA(cudaGraphLaunch(exec, stream));
      EXPECT_CUDA(cudaStreamSynchronize(stream));
      for (int r = 0; r < kRanks; ++r) ASSERT_EQ(all[r], 100 * r + i);
      ASSERT_EQ(*sum, 600 + 4 * i);
    }
  });
  EXPECT_EQ(runtime_counters().collectives, 2U * kRanks * 200);
  EXPECT_EQ(runtime_counters().collective_groups, 1U * kRanks * 200);
}

// ---- what is refused ---------------------------------------------------------------------------

class RefusedUnderCapture : public Graphs,
                            public testing::WithParamInterface<cudaStreamCaptureMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, RefusedUnderCapture,
                         testing::Values(cudaStreamCaptureModeGlobal,
                                         cudaStreamCaptureModeThreadLocal));

TEST_P(RefusedUnderCapture, CallsThatAllocateFreeOrWaitMakeTheCaptureInvalid) {
  const cudaEvent_t event = new_event();
  const cudaStream_t other = new_stream();
  void* at = nullptr;
  int host = 0;
  const std::vector<std::function<cudaError_t()>> calls = {
      [&] { return cudaMalloc(&at, 4); },
      [&] { return cudaHostAlloc(&at, 4, 0); },
      [&] { return cudaFree(value_); },
      [&] { return cudaStreamSynchronize(stream_); },
      [&] { return cudaStreamSynchronize(other); },
      [&] { return cudaStreamQuery(stream_); },
      [&] { return cudaStreamQuery(other); },
      [&] { return cudaDeviceSynchronize(); },
      [&] { return cudaEventQuery(event); },
      [&] { return cudaEventSynchronize(event); },
      [&] { return cudaMemcpy(value_, &host, 4, cudaMemcpyHostToDevice); },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE("call " + std::to_string(i));
    begin(GetParam());
    EXPECT_EQ(calls[i](), cudaErrorStreamCaptureUnsupported);
    expect_invalidated();
  }
  EXPECT_EQ(cudaGetLastError(), cudaErrorStreamCaptureInvalidated);
}

TEST_F(Graphs, InRelaxedModeAllocationsAreAllowedAndWaitingForTheCaptureIsNot) {
  begin(cudaStreamCaptureModeRelaxed);
  unsigned char* const another = device_array<unsigned char>(4);
  ASSERT_CUDA(cudaMemsetAsync(another, 3, 4, stream_));
  const cudaGraphExec_t exec = end();
  ASSERT_CUDA(cudaGraphLaunch(exec, stream_));
  ASSERT_CUDA(cudaStreamSynchronize(stream_));
  EXPECT_EQ(*another, 3);
  begin(cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorStreamCaptureUnsupported);
  expect_invalidated();
}

TEST_F(Graphs, InGlobalModeOtherThreadsMayNotDoUnsafeCallsEither) {
  const cudaEvent_t event = new_event();
  const auto query = [&] {
    cudaError_t error = cudaSuccess;
    std::thread([&] { error = cudaEventQuery(event); }).join();
    return error;
  };
  begin(cudaStreamCaptureModeThreadLocal);
  EXPECT_EQ(query(), cudaSuccess);
  EXPECT_NE(end(), nullptr);
  begin(cudaStreamCaptureModeGlobal);
  EXPECT_EQ(query(), cudaErrorStreamCaptureUnsupported);
  expect_invalidated();
}

TEST_F(Graphs, ACapturedEventCanBeNeitherAskedNorWaitedForByTheHost) {
  const cudaEvent_t event = new_event();
  begin(cudaStreamCaptureModeRelaxed);
  ASSERT_CUDA(cudaEventRecord(event, stream_));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorCapturedEvent);
  expect_invalidated();
  EXPECT_EQ(cudaEventSynchronize(event), cudaErrorCapturedEvent);  // until it is recorded anew
  ASSERT_CUDA(cudaEventRecord(event, stream_));
  EXPECT_CUDA(cudaEventSynchronize(event));
}

TEST_F(Graphs, TheLegacyStreamMayNotBeUsedWhileABlockingStreamCaptures) {
  ASSERT_CUDA(cudaStreamCreate(&stream_));
  begin();
  EXPECT_EQ(cudaMemsetAsync(value_, 0, 4, nullptr), cudaErrorStreamCaptureImplicit);
  expect_invalidated();
  EXPECT_EQ(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeRelaxed),
            cudaErrorStreamCaptureUnsupported);
  stream_ = new_stream();  // a stream that does not order itself with the legacy stream
  begin();
  EXPECT_CUDA(cudaMemsetAsync(value_, 0, 4, nullptr));
  EXPECT_NE(end(), nullptr);
}

TEST_F(Graphs, ACaptureMayNotDependOnWorkOutsideOfIt) {
  const cudaStream_t other = new_stream();
  const cudaEvent_t event = new_event();
  ASSERT_CUDA(cudaEventRecord(event, other));
  begin();
  EXPECT_EQ(cudaStreamWaitEvent(stream_, event, 0), cudaErrorStreamCaptureIsolation);
  expect_invalidated();
}

TEST_F(Graphs, ACaptureMustBeJoinedAndEndedWhereItBegan) {
  const cudaStream_t side = new_stream();
  const cudaEvent_t fork = new_event();
  begin();
  ASSERT_CUDA(cudaEventRecord(fork, stream_));
  ASSERT_CUDA(cudaStreamWaitEvent(side, fork, 0));
  ASSERT_CUDA(cudaMemsetAsync(value_, 0, 4, side));
  expect_end(cudaErrorStreamCaptureUnjoined);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(side, &graph), cudaErrorIllegalState);
  begin();
  std::thread([&] {
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph), cudaErrorStreamCaptureWrongThread);
  }).join();
  expect_invalidated();
}

}  // namespace
}  // namespace gradwarden::emulator
