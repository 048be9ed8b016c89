// Streams, events, copies, memory and counters of the emulated CUDA runtime.
#include <cstring>
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

using Copies = RuntimeTest;

TEST_F(Copies, ReadAPinnedSourceWhenTheyRun) {
  const cudaStream_t stream = new_stream();
  int* const pinned = pinned_array<int>(1);
  int* const device = device_array<int>(1);
  *pinned = 1;
  Gate gate;
  gate.hold(stream);
  ASSERT_CUDA(cudaMemcpyAsync(device, pinned, sizeof(int), cudaMemcpyHostToDevice, stream));
  *pinned = 2;  // a bug in real code: this is what it would see
  gate.open();
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(*device, 2);
}

TEST_F(Copies, ReadAPageableSourceAtTheCall) {
  const cudaStream_t stream = new_stream();
  int source = 1;
  int* const device = device_array<int>(1);
  Gate gate;
  gate.hold(stream);
  ASSERT_CUDA(cudaMemcpyAsync(device, &source, sizeof(int), cudaMemcpyHostToDevice, stream));
  source = 2;
  gate.open();
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  EXPECT_EQ(*device, 1);
}

TEST_F(Copies, IntoPageableMemoryAreCountedAsBlocking) {
  const cudaStream_t stream = new_stream();
  int* const device = device_array<int>(1);
  ASSERT_CUDA(cudaMemsetAsync(device, 0, sizeof(int), stream));
  int target = 7;
  ASSERT_CUDA(cudaMemcpyAsync(&target, device, sizeof(int), cudaMemcpyDeviceToHost, stream));
  EXPECT_EQ(target, 0);
  EXPECT_EQ(runtime_counters().blocking_calls["cudaMemcpyAsync into pageable memory"], 1U);
}

TEST_F(Copies, AreRefusedWhereTheyWouldLeaveAnAllocation) {
  const cudaStream_t stream = new_stream();
  char* const device = device_array<char>(100);
  char* const pinned = pinned_array<char>(200);
  EXPECT_EQ(cudaMemcpyAsync(device, pinned, 101, cudaMemcpyHostToDevice, stream),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemcpyAsync(device + 1, pinned, 100, cudaMemcpyDefault, stream),
            cudaErrorInvalidValue);
  char host[100] = {};
  EXPECT_EQ(cudaMemcpyAsync(host, pinned, 100, cudaMemcpyHostToDevice, stream),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaMemsetAsync(device, 0, 101, stream), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_CUDA(cudaMemcpy(device, host, 100, cudaMemcpyHostToDevice));
}

using Memory = RuntimeTest;

TEST_F(Memory, IsDescribedByItsPointer) {
  ASSERT_CUDA(cudaSetDevice(3));
  float* const device = device_array<float>(4);
  float* const pinned = pinned_array<float>(4);
  float host = 0;
  cudaPointerAttributes attributes;
  ASSERT_CUDA(cudaPointerGetAttributes(&attributes, device + 1));
  EXPECT_EQ(attributes.type, cudaMemoryTypeDevice);
  EXPECT_EQ(attributes.device, 3);
  ASSERT_CUDA(cudaPointerGetAttributes(&attributes, pinned));
  EXPECT_EQ(attributes.type, cudaMemoryTypeHost);
  EXPECT_EQ(attributes.hostPointer, pinned);
  ASSERT_CUDA(cudaPointerGetAttributes(&attributes, &host));
  EXPECT_EQ(attributes.type, cudaMemoryTypeUnregistered);
  void* mapped = nullptr;
  ASSERT_CUDA(cudaHostGetDevicePointer(&mapped, pinned, 0));
  EXPECT_NE(mapped, nullptr);
  EXPECT_EQ(cudaHostGetDevicePointer(&mapped, device, 0), cudaErrorInvalidValue);
}

TEST_F(Memory, IsNotZeroWhenFreshAndNotFreedTwice) {
  unsigned char* const device = device_array<unsigned char>(64);
  EXPECT_NE(device[0], 0);
  EXPECT_EQ(cudaFreeHost(device), cudaErrorInvalidValue);
  EXPECT_CUDA(cudaFree(device));
  EXPECT_EQ(cudaFree(device), cudaErrorInvalidValue);
  EXPECT_CUDA(cudaFree(nullptr));
}

TEST_F(Memory, IsFreedOnlyAfterTheWorkThatUsesIt) {
  const cudaStream_t stream = new_stream();
  char* const device = device_array<char>(1000);
  char* const pinned = pinned_array<char>(1000);
  for (int i = 0; i < 20; ++i)
    ASSERT_CUDA(cudaMemcpyAsync(device, pinned, 1000, cudaMemcpyHostToDevice, stream));
  ASSERT_CUDA(cudaFree(device));  // waits; the fixture fails the test if a copy came too late
  EXPECT_EQ(runtime_counters().blocking_calls["cudaFree"], 1U);
}

TEST_F(Memory, UsedAfterItWasFreedIsReportedAndTheErrorSticks) {
  const cudaStream_t stream = new_stream();
  char* const device = device_array<char>(1000);
  Gate gate;
  gate.hold(stream);
  ASSERT_CUDA(cudaMemsetAsync(device, 0, 1000, stream));
  const cudaStream_t other = new_stream();
  ASSERT_CUDA(cudaFreeAsync(device, other));  // nothing orders it after the memset
  ASSERT_CUDA(cudaStreamSynchronize(other));
  gate.open();
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaErrorIllegalAddress);
  EXPECT_EQ(take_runtime_violations().size(), 1U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaStreamQuery(stream), cudaErrorIllegalAddress);
    void* at = nullptr;
    EXPECT_EQ(cudaMalloc(&at, 1), cudaErrorIllegalAddress);
  }
  ASSERT_CUDA(cudaSetDevice(1));  // another device is well
  EXPECT_CUDA(cudaDeviceSynchronize());
}

using MachineTest = RuntimeTest;

TEST_F(MachineTest, HasTheDevicesThatWereAskedForAndOneCurrentPerThread) {
  set_device_count(3);
  set_multiprocessor_count(7);
  int count = 0;
  ASSERT_CUDA(cudaGetDeviceCount(&count));
  EXPECT_EQ(count, 3);
  EXPECT_EQ(cudaSetDevice(3), cudaErrorInvalidDevice);
  ASSERT_CUDA(cudaSetDevice(2));
  std::thread([] {
    int device = -1;
    EXPECT_CUDA(cudaGetDevice(&device));
    EXPECT_EQ(device, 0);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // errors are a thread's own
  }).join();
  int device = -1;
  ASSERT_CUDA(cudaGetDevice(&device));
  EXPECT_EQ(device, 2);
  int processors = 0;
  ASSERT_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 2));
  EXPECT_EQ(processors, 7);
}

TEST_F(MachineTest, FailsTheCallThatATestChose) {
  fail_call("cudaMalloc", 2, cudaErrorMemoryAllocation);
  void* at = nullptr;
  EXPECT_EQ(cudaMalloc(&at, 8), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&at, 8), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaPeekAtLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&at, 8), cudaSuccess);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
}

TEST_F(MachineTest, CountsWhatTheHostAskedFor) {
  const cudaStream_t stream = new_stream();
  const cudaEvent_t event = new_event();
  char* const device = device_array<char>(100);
  char* const pinned = pinned_array<char>(100);
  reset_runtime_counters();
  ASSERT_CUDA(cudaMemcpyAsync(device, pinned, 60, cudaMemcpyHostToDevice, stream));
  ASSERT_CUDA(cudaMemcpyAsync(pinned, device, 40, cudaMemcpyDeviceToHost, stream));
  ASSERT_CUDA(cudaMemsetAsync(device, 0, 100, stream));
  ASSERT_CUDA(cudaEventRecord(event, stream));
  ASSERT_CUDA(cudaEventSynchronize(event));
  ASSERT_CUDA(cudaEventQuery(event));
  ASSERT_CUDA(cudaStreamQuery(stream));
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  ASSERT_CUDA(cudaDeviceSynchronize());
  ASSERT_CUDA(cudaFree(device));
  RuntimeCounters c = runtime_counters();
  EXPECT_EQ(c.async_copies, 2U);
  EXPECT_EQ(c.async_copy_bytes, 100U);
  EXPECT_EQ(c.memsets, 1U);
  EXPECT_EQ(c.event_records, 1U);
  EXPECT_EQ(c.event_queries, 1U);
  EXPECT_EQ(c.stream_queries, 1U);
  EXPECT_EQ(c.stream_synchronisations, 1U);
  EXPECT_EQ(c.event_synchronisations, 1U);
  EXPECT_EQ(c.device_synchronisations, 1U);
  EXPECT_EQ(c.synchronisations(), 3U);
  EXPECT_EQ(c.allocations, 0U);
  EXPECT_EQ(c.frees, 1U);
  EXPECT_EQ(c.calls["cudaMemcpyAsync"], 2U);
  EXPECT_EQ(c.blocking_calls.size(), 4U);  // three kinds of synchronisation, a free
}

TEST_F(MachineTest, RefusesHandlesFromBeforeItsReset) {
  const cudaStream_t stream = new_stream();
  const cudaEvent_t event = new_event();
  Gate gate;
  gate.hold(stream);
  ASSERT_TRUE(eventually([&] { return gate.reached(); }));
  gate.open();
  reset_runtime();
  EXPECT_EQ(cudaStreamQuery(stream), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventQuery(event), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(runtime_counters().allocations, 0U);
}

}  // namespace
}  // namespace gradwarden::emulator
