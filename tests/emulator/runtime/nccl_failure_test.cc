// How collectives fail: mismatches, stalls, aborts, injected errors.
#include <mutex>
#include <string>
#include <vector>

#include "tests/emulator/runtime/nccl_fixture.h"

namespace gradwarden::emulator {
namespace {

using NcclFailures = NcclTest;

TEST_F(NcclFailures, ReportCollectivesThatDoNotMatch) {
  run_ranks(2, [&](int rank) {
    const ncclComm_t communicator = join(rank, 2);
    const cudaStream_t stream = new_stream();
    auto* data = pinned_array<double>(20);
    const std::size_t count = rank == 0 ? 4 : 5;
    EXPECT_NCCL(ncclAllGather(data, data + 10, count, ncclFloat64, communicator, stream));
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    ncclResult_t error = ncclSuccess;
    EXPECT_NCCL(ncclCommGetAsyncError(communicator, &error));
    EXPECT_EQ(error, ncclInvalidUsage);
    EXPECT_NE(std::string(ncclGetLastError(communicator)).find("do not match"), std::string::npos);
    EXPECT_EQ(ncclAllGather(data, data + 10, 1, ncclFloat64, communicator, stream),
              ncclInvalidUsage);
  });
  EXPECT_EQ(take_runtime_violations().size(), 1U);
}

TEST_F(NcclFailures, ReportBuffersThatAreTooSmall) {
  const ncclComm_t communicator = join(0, 1);
  const cudaStream_t stream = new_stream();
  auto* data = device_array<double>(4);
  auto* small = device_array<double>(3);
  EXPECT_NCCL(ncclAllGather(data, small, 4, ncclFloat64, communicator, stream));
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_EQ(take_runtime_violations().size(), 1U);
  ncclResult_t error = ncclSuccess;
  EXPECT_NCCL(ncclCommGetAsyncError(communicator, &error));
  EXPECT_EQ(error, ncclUnhandledCudaError);
}

TEST_F(NcclFailures, StallUntilEachRankAborts) {
  std::mutex mutex;
  std::vector<ncclComm_t> communicators(3);
  std::vector<cudaStream_t> streams(3);
  stall_collective(1);
  run_ranks(3, [&](int rank) {
    const ncclComm_t communicator = join(rank, 3);
    const cudaStream_t stream = new_stream();
    auto* data = pinned_array<std::int32_t>(4);
    data[3] = 77;
    EXPECT_NCCL(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream));
    const std::lock_guard lock(mutex);
    communicators[static_cast<std::size_t>(rank)] = communicator;
    streams[static_cast<std::size_t>(rank)] = stream;
  });
  EXPECT_NCCL(ncclCommAbort(communicators[1]));
  ASSERT_CUDA(cudaSetDevice(1));
  EXPECT_CUDA(cudaStreamSynchronize(streams[1]));
  EXPECT_EQ(cudaStreamQuery(streams[0]), cudaErrorNotReady);  // its own rank has to abort
  ncclResult_t error = ncclSuccess;
  EXPECT_EQ(ncclCommGetAsyncError(communicators[1], &error), ncclInvalidArgument);
  for (const int rank : {0, 2}) {
    EXPECT_NCCL(ncclCommAbort(communicators[static_cast<std::size_t>(rank)]));
    EXPECT_CUDA(cudaStreamSynchronize(streams[static_cast<std::size_t>(rank)]));
  }
}

TEST_F(NcclFailures, AnAbortDoesNotWaitForCollectivesThatHaveNotBegun) {
  const ncclComm_t communicator = join(0, 1);
  const cudaStream_t stream = new_stream();
  auto* data = pinned_array<std::int32_t>(2);
  data[1] = 55;
  Gate gate;
  gate.hold(stream);
  EXPECT_NCCL(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream));
  EXPECT_NCCL(ncclCommAbort(communicator));
  gate.open();
  EXPECT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(data[1], 55);
}

TEST_F(NcclFailures, StallsEndWhenTheMachineIsReset) {
  stall_collective(0);
  const ncclComm_t communicator = join(0, 1);
  const cudaStream_t stream = new_stream();
  auto* data = pinned_array<std::int32_t>(2);
  EXPECT_NCCL(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream));
  reset_runtime();  // returns
  EXPECT_EQ(ncclCommDestroy(communicator), ncclInvalidArgument);
}

TEST_F(NcclFailures, FailTheCallOfTheRankThatATestChose) {
  fail_collective(1, ncclSystemError);
  run_ranks(2, [&](int rank) {
    const ncclComm_t communicator = join(rank, 2);
    const cudaStream_t stream = new_stream();
    auto* data = pinned_array<std::int32_t>(3);
    if (rank == 1) {
      EXPECT_EQ(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream), ncclSystemError);
    }
    EXPECT_NCCL(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream));
    EXPECT_CUDA(cudaStreamSynchronize(stream));
  });
}

TEST_F(NcclFailures, ShowAnAsynchronousErrorAndRefuseFurtherCalls) {
  const ncclComm_t communicator = join(0, 1);
  auto* data = pinned_array<std::int32_t>(2);
  ncclResult_t error = ncclInternalError;
  EXPECT_NCCL(ncclCommGetAsyncError(communicator, &error));
  EXPECT_EQ(error, ncclSuccess);
  set_async_error(0, ncclRemoteError);
  EXPECT_NCCL(ncclCommGetAsyncError(communicator, &error));
  EXPECT_EQ(error, ncclRemoteError);
  EXPECT_EQ(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, new_stream()),
            ncclRemoteError);
  EXPECT_NCCL(ncclCommAbort(communicator));
}

}  // namespace
}  // namespace gradwarden::emulator
