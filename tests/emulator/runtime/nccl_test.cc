// Ranks as threads: communicators, collectives, groups.
#include <dlfcn.h>

#include "tests/emulator/runtime/nccl_fixture.h"

namespace gradwarden::emulator {
namespace {

using Nccl = NcclTest;

class NcclRanks : public NcclTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclRanks, testing::Values(1, 2, 4, 16));

TEST_P(NcclRanks, GatherFromAllInRankOrder) {
  const int ranks = GetParam();
  constexpr int kCount = 37;
  run_ranks(ranks, [&](int rank) {
    const ncclComm_t communicator = join(rank, ranks);
    const cudaStream_t stream = new_stream();
    auto* send = device_array<double>(kCount);
    auto* all = pinned_array<double>(static_cast<std::size_t>(ranks) * kCount);
    for (int round = 0; round < 20; ++round) {
      for (int i = 0; i < kCount; ++i) send[i] = rank * 1000 + round * 50 + i;
      EXPECT_NCCL(ncclAllGather(send, all, kCount, ncclFloat64, communicator, stream));
      EXPECT_CUDA(cudaStreamSynchronize(stream));
      for (int i = 0; i < ranks * kCount; ++i)
        ASSERT_EQ(all[i], i / kCount * 1000 + round * 50 + i % kCount);
    }
    EXPECT_NCCL(ncclCommDestroy(communicator));
  });
}

TEST_P(NcclRanks, ReduceScatterAndBroadcastInPlaceToo) {
  const int ranks = GetParam();
  run_ranks(ranks, [&](int rank) {
    const ncclComm_t communicator = join(rank, ranks);
    const cudaStream_t stream = new_stream();
    auto* floats = pinned_array<float>(3);
    auto* doubles = pinned_array<double>(1);
    auto* blocks = pinned_array<std::int32_t>(static_cast<std::size_t>(ranks));
    auto* from_last = pinned_array<std::uint64_t>(1);
    for (int i = 0; i < 3; ++i) floats[i] = static_cast<float>(rank + i);
    *doubles = -rank;
    for (int i = 0; i < ranks; ++i) blocks[i] = i + 10 * rank;
    *from_last = 7U + static_cast<unsigned>(rank);
    auto* own_block = blocks + rank;
    EXPECT_NCCL(ncclGroupStart());
    EXPECT_NCCL(ncclAllReduce(floats, floats, 3, ncclFloat32, ncclSum, communicator, stream));
    EXPECT_NCCL(ncclAllReduce(doubles, doubles, 1, ncclFloat64, ncclMax, communicator, stream));
    EXPECT_NCCL(ncclReduceScatter(blocks, own_block, 1, ncclInt32, ncclSum, communicator, stream));
    EXPECT_NCCL(
        ncclBroadcast(from_last, from_last, 1, ncclUint64, ranks - 1, communicator, stream));
    EXPECT_NCCL(ncclGroupEnd());
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    const int sum = ranks * (ranks - 1) / 2;
    for (int i = 0; i < 3; ++i) EXPECT_EQ(floats[i], static_cast<float>(sum + ranks * i));
    EXPECT_EQ(*doubles, 0);
    EXPECT_EQ(*own_block, rank * ranks + 10 * sum);
    EXPECT_EQ(*from_last, 7U + static_cast<unsigned>(ranks) - 1);
    EXPECT_NCCL(ncclCommDestroy(communicator));
  });
  EXPECT_EQ(runtime_counters().collectives, 4U * static_cast<unsigned>(ranks));
  EXPECT_EQ(runtime_counters().collective_groups, 1U * static_cast<unsigned>(ranks));
}

TEST_P(NcclRanks, AverageFloatsAndRefuseToAverageIntegers) {
  const int ranks = GetParam();
  run_ranks(ranks, [&](int rank) {
    cudaStream_t stream = new_stream();
    ncclComm_t communicator = join(rank, ranks);
    float* const value = device_array<float>(1);
    *value = static_cast<float>(rank);
    EXPECT_EQ(ncclAllReduce(value, value, 1, ncclInt32, ncclAvg, communicator, stream),
              ncclInvalidArgument);
    EXPECT_NCCL(ncclAllReduce(value, value, 1, ncclFloat, ncclAvg, communicator, stream));
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(*value, static_cast<float>(ranks - 1) / 2);
    EXPECT_NCCL(ncclCommDestroy(communicator));
  });
}

TEST_F(Nccl, IsFoundInTheRunningProcessByName) {
  for (const char* name : {"ncclAllGather", "ncclGroupStart", "ncclCommGetAsyncError"})
    EXPECT_NE(dlsym(RTLD_DEFAULT, name), nullptr) << name;
  EXPECT_EQ(dlsym(RTLD_DEFAULT, "ncclSend"), nullptr);  // not emulated, and no other copy loaded
}

TEST_F(Nccl, WaitInTheStreamForTheOtherRankAndNotInTheCall) {
  auto* all = pinned_array<std::int32_t>(4);
  auto* send = pinned_array<std::int32_t>(2);
  send[0] = 5;
  send[1] = 6;
  ncclComm_t communicators[2];
  EXPECT_NCCL(ncclCommInitAll(communicators, 2, nullptr));
  cudaStream_t streams[2];
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_CUDA(cudaSetDevice(rank));
    streams[rank] = new_stream();
  }
  EXPECT_NCCL(ncclAllGather(send, all, 1, ncclInt32, communicators[0], streams[0]));
  EXPECT_EQ(cudaStreamQuery(streams[0]), cudaErrorNotReady);
  EXPECT_NCCL(ncclAllGather(send + 1, all + 2, 1, ncclInt32, communicators[1], streams[1]));
  for (const cudaStream_t stream : streams) EXPECT_CUDA(cudaStreamSynchronize(stream));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(all[i], i % 2 == 0 ? 5 : 6);
}

TEST_F(Nccl, StartNothingBeforeTheOutermostGroupEnds) {
  const ncclComm_t communicator = join(0, 1);
  const cudaStream_t stream = new_stream();
  auto* value = pinned_array<std::int32_t>(2);
  value[0] = 3;
  value[1] = 0;
  EXPECT_NCCL(ncclGroupStart());
  EXPECT_NCCL(ncclGroupStart());
  EXPECT_NCCL(ncclAllGather(value, value + 1, 1, ncclInt32, communicator, stream));
  EXPECT_NCCL(ncclGroupEnd());
  EXPECT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(value[1], 0);
  EXPECT_NCCL(ncclGroupEnd());
  EXPECT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(value[1], 3);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidUsage);
}

TEST_F(Nccl, StartNothingOfAGroupInWhichACallFailed) {
  const ncclComm_t communicator = join(0, 1);
  const cudaStream_t stream = new_stream();
  auto* value = pinned_array<std::int32_t>(2);
  EXPECT_NCCL(ncclGroupStart());
  EXPECT_NCCL(ncclAllGather(value, value + 1, 1, ncclInt32, communicator, stream));
  EXPECT_EQ(ncclAllGather(nullptr, value, 1, ncclInt32, communicator, stream), ncclInvalidArgument);
  EXPECT_EQ(ncclGroupEnd(), ncclInvalidArgument);
  EXPECT_EQ(runtime_counters().collectives, 0U);
  EXPECT_NCCL(ncclAllGather(value, value + 1, 1, ncclInt32, communicator, stream));
}

// The way that a non-blocking communicator wants to be used.
ncclResult_t poll_until_done(ncclComm_t communicator) {
  ncclResult_t state = ncclInProgress;
  EXPECT_TRUE(eventually([&] {
    EXPECT_NCCL(ncclCommGetAsyncError(communicator, &state));
    return state != ncclInProgress;
  }));
  return state;
}

TEST_F(Nccl, ANonBlockingCommunicatorSaysInProgressUntilItIsPolled) {
  run_ranks(2, [&](int rank) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t communicator = nullptr;
    EXPECT_EQ(ncclCommInitRankConfig(&communicator, 2, id_, rank, &config), ncclInProgress);
    EXPECT_EQ(poll_until_done(communicator), ncclSuccess);
    const cudaStream_t stream = new_stream();
    auto* data = pinned_array<std::int32_t>(3);
    data[0] = rank;
    EXPECT_EQ(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream), ncclInProgress);
    EXPECT_EQ(ncclAllGather(data, data + 1, 1, ncclInt32, communicator, stream),
              ncclInvalidArgument);
    EXPECT_EQ(poll_until_done(communicator), ncclSuccess);
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(data[2], 1);
    EXPECT_EQ(ncclCommFinalize(communicator), ncclInProgress);
    EXPECT_EQ(poll_until_done(communicator), ncclSuccess);
    EXPECT_NCCL(ncclCommDestroy(communicator));
  });
}

TEST_F(Nccl, ANonBlockingCommunicatorThatLacksARankStaysInProgressUntilItIsAborted) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t communicator = nullptr;
  EXPECT_EQ(ncclCommInitRankConfig(&communicator, 2, id_, 0, &config), ncclInProgress);
  for (int i = 0; i < 10; ++i) {
    ncclResult_t state = ncclSuccess;
    EXPECT_NCCL(ncclCommGetAsyncError(communicator, &state));
    EXPECT_EQ(state, ncclInProgress);
  }
  int count = 0;
  EXPECT_EQ(ncclCommCount(communicator, &count), ncclInvalidArgument);
  EXPECT_NCCL(ncclCommAbort(communicator));
}

TEST_F(Nccl, InitialiseSeveralRanksOfOneThreadInAGroup) {
  ncclComm_t communicators[2];
  EXPECT_NCCL(ncclGroupStart());
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_CUDA(cudaSetDevice(rank));
    EXPECT_NCCL(ncclCommInitRank(&communicators[rank], 2, id_, rank));
  }
  EXPECT_NCCL(ncclGroupEnd());
  for (int rank = 0; rank < 2; ++rank) {
    int value = -1;
    EXPECT_NCCL(ncclCommUserRank(communicators[rank], &value));
    EXPECT_EQ(value, rank);
    EXPECT_NCCL(ncclCommCuDevice(communicators[rank], &value));
    EXPECT_EQ(value, rank);
    EXPECT_NCCL(ncclCommCount(communicators[rank], &value));
    EXPECT_EQ(value, 2);
  }
}

TEST_F(Nccl, RefuseTwoRanksOnOneDeviceAndStreamsOfAnother) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t first = nullptr;
  ncclComm_t second = nullptr;
  EXPECT_EQ(ncclCommInitRankConfig(&first, 2, id_, 0, &config), ncclInProgress);
  EXPECT_EQ(ncclCommInitRankConfig(&second, 2, id_, 0, &config), ncclInvalidArgument);
  EXPECT_EQ(ncclCommInitRankConfig(&second, 3, id_, 1, &config), ncclInvalidArgument);
  EXPECT_EQ(ncclCommInitRankConfig(&second, 2, id_, 1, &config), ncclInvalidUsage);
  ncclUniqueId other;
  EXPECT_NCCL(ncclGetUniqueId(&other));
  ncclComm_t alone = nullptr;
  EXPECT_NCCL(ncclCommInitRank(&alone, 1, other, 0));
  ASSERT_CUDA(cudaSetDevice(1));
  auto* data = pinned_array<std::int32_t>(2);
  EXPECT_EQ(ncclAllGather(data, data + 1, 1, ncclInt32, alone, new_stream()), ncclInvalidArgument);
}

}  // namespace
}  // namespace gradwarden::emulator
