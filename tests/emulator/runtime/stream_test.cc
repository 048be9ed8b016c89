// Streams and events of the emulated CUDA runtime.
#include <numeric>

#include "tests/emulator/runtime/runtime_fixture.h"

namespace gradwarden::emulator {
namespace {

using Streams = RuntimeTest;

TEST_F(Streams, RunTheirTasksInOrderAndAsynchronously) {
  const cudaStream_t stream = new_stream();
  int* const device = device_array<int>(1);
  int* const pinned = pinned_array<int>(100);
  std::iota(pinned, pinned + 100, 0);
  Gate gate;
  gate.hold(stream);
  for (int i = 0; i < 100; ++i) {
    ASSERT_CUDA(cudaMemcpyAsync(device, &pinned[i], sizeof(int), cudaMemcpyHostToDevice, stream));
  }
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorNotReady);
  gate.open();
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(*device, 99);
  EXPECT_EQ(cudaStreamQuery(stream), cudaSuccess);
}

TEST_F(Streams, AreNotOrderedAmongEachOtherWithoutAnEvent) {
  const cudaStream_t first = new_stream();
  const cudaStream_t second = new_stream();
  int* const value = pinned_array<int>(1);
  *value = 0;
  Gate gate;
  gate.hold(first);
  ASSERT_CUDA(cudaMemsetAsync(value, 1, sizeof(int), first));
  int* const seen = device_array<int>(1);
  ASSERT_CUDA(cudaMemcpyAsync(seen, value, sizeof(int), cudaMemcpyDefault, second));
  ASSERT_CUDA(cudaStreamSynchronize(second));  // does not wait for the first
  EXPECT_EQ(*seen, 0);
  gate.open();
  ASSERT_CUDA(cudaStreamSynchronize(first));
}

TEST_F(Streams, AreOrderedByAnEvent) {
  const cudaStream_t first = new_stream();
  const cudaStream_t second = new_stream();
  const cudaEvent_t event = new_event();
  unsigned char* const value = pinned_array<unsigned char>(1);
  unsigned char* const seen = device_array<unsigned char>(1);
  for (int i = 0; i < 50; ++i) {
    ASSERT_CUDA(cudaMemsetAsync(value, i, 1, first));
    ASSERT_CUDA(cudaEventRecord(event, first));
    ASSERT_CUDA(cudaStreamWaitEvent(second, event, 0));
    ASSERT_CUDA(cudaMemcpyAsync(seen, value, 1, cudaMemcpyDefault, second));
    ASSERT_CUDA(cudaStreamSynchronize(second));
    ASSERT_EQ(*seen, i);
  }
}

TEST_F(Streams, WaitForTheRecordThatCameBeforeTheWaitAlone) {
  const cudaStream_t first = new_stream();
  const cudaStream_t second = new_stream();
  const cudaEvent_t event = new_event();
  ASSERT_CUDA(cudaEventRecord(event, first));
  ASSERT_CUDA(cudaStreamWaitEvent(second, event, 0));
  Gate gate;
  gate.hold(first);
  ASSERT_CUDA(cudaEventRecord(event, first));  // a later record, which the wait must not see
  ASSERT_CUDA(cudaStreamSynchronize(second));
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  gate.open();
  ASSERT_CUDA(cudaEventSynchronize(event));
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
}

TEST_F(Streams, FinishWhatIsQueuedAfterTheyWereDestroyed) {
  const cudaStream_t stream = new_stream();
  int* const value = pinned_array<int>(1);
  *value = 0;
  Gate gate;
  gate.hold(stream);
  ASSERT_CUDA(cudaMemsetAsync(value, 1, 1, stream));
  ASSERT_CUDA(cudaStreamDestroy(stream));
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
  gate.open();
  ASSERT_CUDA(cudaDeviceSynchronize());
  EXPECT_EQ(*value, 1);
}

TEST_F(Streams, TimeWhatLiesBetweenTwoEvents) {
  const cudaStream_t stream = new_stream();
  cudaEvent_t start = nullptr;
  cudaEvent_t end = nullptr;
  ASSERT_CUDA(cudaEventCreate(&start));
  ASSERT_CUDA(cudaEventCreate(&end));
  ASSERT_CUDA(cudaEventRecord(start, stream));
  ASSERT_CUDA(cudaEventRecord(end, stream));
  ASSERT_CUDA(cudaEventSynchronize(end));
  float milliseconds = -1;
  ASSERT_CUDA(cudaEventElapsedTime(&milliseconds, start, end));
  EXPECT_GE(milliseconds, 0);
  EXPECT_EQ(cudaEventElapsedTime(&milliseconds, start, new_event()),
            cudaErrorInvalidResourceHandle);
}

TEST_F(Streams, RefuseCallsFromAHostFunction) {
  const cudaStream_t stream = new_stream();
  cudaError_t error = cudaSuccess;
  ASSERT_CUDA(cudaLaunchHostFunc(
      stream,
      [](void* out) {
        void* at = nullptr;
        *static_cast<cudaError_t*>(out) = cudaMalloc(&at, 4);
      },
      &error));
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(error, cudaErrorNotPermitted);
  EXPECT_EQ(take_runtime_violations().size(), 1U);
}

}  // namespace
}  // namespace gradwarden::emulator
