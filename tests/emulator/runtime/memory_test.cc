// Copies, memory, devices, counters and injected failures of the emulated CUDA runtime.
#include <thread>
#include <vector>

#include "tests/emulator/runtime/machine.h"
#include "tests/emulator/runtime/runtime_fixture.h"

namespace gradwarden::emulator {
namespace {

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

// Freed device memory may come back as the host's own: it is then no freed memory any more.
TEST_F(Copies, AcceptHostMemoryWhereFreedDeviceMemoryWas) {
  constexpr std::size_t kBytes = std::size_t{100} << 20;
  char* const device = device_array<char>(1);
  for (int i = 0; i < 8; ++i) {  // the allocator gives an address out again sooner or later
    char* const large = device_array<char>(kBytes);
    ASSERT_CUDA(cudaFree(large));
    EXPECT_EQ(Machine::get().memory_map()->find(large, 1).place, MemoryMap::Place::kOutside)
        << "given back to the allocator, so no longer known as freed device memory";
    const std::vector<char> host(kBytes, 'x');
    ASSERT_CUDA(cudaMemcpy(device, host.data() + kBytes / 2, 1, cudaMemcpyHostToDevice));
  }
  EXPECT_EQ(*device, 'x');
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
  ASSERT_CUDA(cudaStreamSynchronize(stream));
  ASSERT_CUDA(cudaStreamQuery(stream));
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
