// Kernels on the emulated CUDA runtime: launches, what the emulated GPU finds, graphs of kernels.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <string>
#include <vector>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/memory.cuh"
#include "kernels/cuda/plan.h"
#include "tests/emulator/runtime/kernel_registry.h"
#include "tests/emulator/runtime/runtime_fixture.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::Gate;
using emulator::RuntimeCounters;

struct Pair {
  float first;
  double second;
};

__global__ void store_pair_kernel(Pair pair, float* out) {
  if (threadIdx.x == 0) *out = pair.first + static_cast<float>(pair.second);
}

__global__ void no_parameter_kernel() { __syncthreads(); }

// Appends each thread's number in the order in which threads run.
__global__ void roll_call_kernel(std::uint32_t* count, std::uint32_t* list) {
  list[atomicAdd(global_word(count), 1U)] = threadIdx.x;
}

__global__ void scale_kernel(const float* factor, unsigned char* data, unsigned count) {
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
    const float value = load_scalar<float>(data + 4 * i);
    store_scalar<float>(data + 4 * i, value * *factor);
  }
}

__global__ void racing_kernel(int* out) {
  GRADWARDEN_SHARED(int, tile, 64);
  tile[threadIdx.x] = 1;
  out[threadIdx.x] = tile[63 - threadIdx.x];
}

__global__ void count_plainly_kernel(std::uint32_t* count) { *global_word(count) += 1U; }

class Kernels : public emulator::RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    stream_ = new_stream();
    emulator::register_kernel(store_pair_kernel, "store_pair");
    emulator::register_kernel(no_parameter_kernel, "no_parameter");
    emulator::register_kernel(roll_call_kernel, "roll_call");
    emulator::register_kernel(scale_kernel, "scale");
    emulator::register_kernel(racing_kernel, "racing");
    emulator::register_kernel(count_plainly_kernel, "count_plainly");
  }
  // The one thing found wrong.
  static std::string violation() {
    const std::vector<std::string> all = emulator::take_runtime_violations();
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? "" : all[0];
  }
  cudaStream_t stream_ = nullptr;
};

TEST_F(Kernels, RunLaterWithTheArgumentsOfTheLaunch) {
  float* const out = device_array<float>(1);
  Gate gate;
  gate.hold(stream_);
  Pair pair{1.5F, 2.25};
  ASSERT_CUDA(launch(store_pair_kernel, 1, 32, stream_, pair, out));
  pair.first = 100;
  float* const later = device_array<float>(1);
  float* target = later;
  void* raw[] = {&pair, &target};
  ASSERT_CUDA(cudaLaunchKernel(reinterpret_cast<const void*>(store_pair_kernel), dim3(1), dim3(32),
                               raw, 0, stream_));
  pair.first = -1;
  target = nullptr;
  gate.open();
  ASSERT_CUDA(cudaStreamSynchronize(stream_));
  EXPECT_EQ(*out, 3.75F);
  EXPECT_EQ(*later, 102.25F);
  EXPECT_EQ(emulator::runtime_counters().kernel_launches, 2U);
}

TEST_F(Kernels, ThatNobodyRegisteredOrInShapesNotEmulatedAreRefused) {
  static int not_a_kernel = 0;
  EXPECT_EQ(cudaLaunchKernel(&not_a_kernel, dim3(1), dim3(32), nullptr, 0, stream_),
            cudaErrorInvalidDeviceFunction);
  EXPECT_EQ(launch(no_parameter_kernel, 0, 32, stream_), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(no_parameter_kernel, 1, 33, stream_), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch(no_parameter_kernel, 1, 2048, stream_), cudaErrorInvalidConfiguration);
  EXPECT_CUDA(launch(no_parameter_kernel, 2, 1024, stream_));
  ASSERT_CUDA(cudaSetDevice(1));  // the stream is device 0's
  EXPECT_EQ(launch(no_parameter_kernel, 1, 32, stream_), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(emulator::runtime_counters().kernel_launches, 1U);
}

TEST_F(Kernels, SayHowManyBlocksFit) {
  int blocks = 0;
  const auto* function = reinterpret_cast<const void*>(find_fold_kernel());
  ASSERT_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 256, 0));
  EXPECT_EQ(blocks, 8);
  cudaFuncAttributes attributes;
  ASSERT_CUDA(cudaFuncGetAttributes(&attributes, function));
  EXPECT_GE(attributes.maxThreadsPerBlock, 256);
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, &blocks), cudaErrorInvalidDeviceFunction);
}

TEST_F(Kernels, RunTheirThreadsInTheOrderThatATestChose) {
  std::uint32_t* const count = device_array<std::uint32_t>(1);
  std::uint32_t* const list = device_array<std::uint32_t>(64);
  const auto order = [&](emulator::Order choice) {
    emulator::set_thread_order(choice);
    EXPECT_CUDA(cudaMemsetAsync(count, 0, sizeof *count, stream_));
    EXPECT_CUDA(launch(roll_call_kernel, 1, 64, stream_, count, list));
    EXPECT_CUDA(cudaStreamSynchronize(stream_));
    return std::vector<std::uint32_t>(list, list + 64);
  };
  const auto ascending = order(emulator::Order::kAscending);
  EXPECT_TRUE(std::is_sorted(ascending.begin(), ascending.end()));
  const auto descending = order(emulator::Order::kDescending);
  EXPECT_TRUE(std::is_sorted(descending.rbegin(), descending.rend()));
  auto shuffled = order(emulator::Order::kShuffled);
  EXPECT_NE(shuffled, ascending);
  EXPECT_NE(shuffled, descending);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, ascending);
}

TEST_F(Kernels, ThatLeaveAllocatedMemoryFailTheirDeviceForGood) {
  auto* const data = device_array<unsigned char>(400);
  float* const factor = pinned_array<float>(1);
  *factor = 2;
  ASSERT_CUDA(cudaMemsetAsync(data, 0, 400, stream_));
  ASSERT_CUDA(launch(scale_kernel, 1, 32, stream_, factor, data, 100U));
  ASSERT_CUDA(cudaStreamSynchronize(stream_));
  ASSERT_CUDA(launch(scale_kernel, 1, 32, stream_, factor, data, 101U));
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  EXPECT_NE(violation().find("scale: global memory out of bounds"), std::string::npos);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(launch(scale_kernel, 1, 32, stream_, factor, data, 1U), cudaErrorIllegalAddress);
    EXPECT_EQ(cudaGetLastError(), cudaErrorIllegalAddress);
  }
  EXPECT_EQ(emulator::sticky_error(0), cudaErrorIllegalAddress);
  EXPECT_EQ(emulator::sticky_error(1), cudaSuccess);
}

TEST_F(Kernels, ThatUseFreedMemoryAreReported) {
  auto* const data = device_array<unsigned char>(400);
  float* const factor = pinned_array<float>(1);
  ASSERT_CUDA(cudaFree(data));
  ASSERT_CUDA(launch(scale_kernel, 1, 32, stream_, factor, data, 100U));
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorIllegalAddress);
  EXPECT_NE(violation().find("was freed"), std::string::npos);
}

TEST_F(Kernels, ThatRaceFailTheirDevice) {
  int* const out = device_array<int>(64);
  ASSERT_CUDA(launch(racing_kernel, 1, 64, stream_, out));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  for (const std::string& what : emulator::take_runtime_violations())
    EXPECT_NE(what.find("shared memory"), std::string::npos) << what;
  ASSERT_CUDA(cudaSetDevice(1));
  const cudaStream_t other = new_stream();
  std::uint32_t* const count = device_array<std::uint32_t>(1);
  ASSERT_CUDA(cudaMemsetAsync(count, 0, 4, other));
  ASSERT_CUDA(launch(count_plainly_kernel, 2, 32, other, count));
  EXPECT_EQ(cudaStreamSynchronize(other), cudaErrorLaunchFailure);
  EXPECT_NE(violation().find("race for global memory"), std::string::npos);
}

TEST_F(Kernels, AreReplayedAThousandTimesOverInputsThatChange) {
  auto* const data = device_array<unsigned char>(400);
  float* const factor = pinned_array<float>(1);
  float* const source = pinned_array<float>(100);
  float* const result = pinned_array<float>(100);
  ASSERT_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
  ASSERT_CUDA(cudaMemcpyAsync(data, source, 400, cudaMemcpyHostToDevice, stream_));
  ASSERT_CUDA(launch(scale_kernel, 1, 64, stream_, factor, data, 100U));
  ASSERT_CUDA(cudaMemcpyAsync(result, data, 400, cudaMemcpyDeviceToHost, stream_));
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_CUDA(cudaStreamEndCapture(stream_, &graph));
  ASSERT_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  EXPECT_EQ(emulator::runtime_counters().kernel_launches, 0U);
  for (int i = 0; i < 1000; ++i) {
    *factor = static_cast<float>(i);
    for (int k = 0; k < 100; ++k) source[k] = static_cast<float>(k + i);
    ASSERT_CUDA(cudaGraphLaunch(exec, stream_));
    ASSERT_CUDA(cudaStreamSynchronize(stream_));
    for (int k = 0; k < 100; ++k) ASSERT_EQ(result[k], static_cast<float>(i) * source[k]);
  }
  const RuntimeCounters c = emulator::runtime_counters();
  EXPECT_EQ(c.kernel_launches, 1000U);
  EXPECT_EQ(c.bytes_read, 400U * 1000U);
  EXPECT_EQ(c.bytes_written, 400U * 1000U);
}

// The product's own kernels, on several streams and devices at once.
TEST_F(Kernels, OfTheProductRunOnSixteenDevicesAtOnce) {
  constexpr std::size_t kCount = 5000;
  emulator::run_ranks(16, [&](int rank) {
    const cudaStream_t stream = new_stream();
    auto* const gradient = device_array<float>(kCount);
    auto* const chunks = pinned_array<ChunkStatistics>(1);
    auto* const tensor = pinned_array<TensorEntry>(1);
    auto* const chunk = pinned_array<ChunkEntry>(1);
    for (std::size_t i = 0; i < kCount; ++i) gradient[i] = static_cast<float>(rank);
    *tensor = {};
    tensor->data = gradient;
    tensor->count = kCount;
    tensor->chunk_count = 1;
    *chunk = {};
    for (int i = 0; i < 3; ++i) {
      EXPECT_CUDA(launch(find_statistics_kernel(NormType::kTwo), 2, kBlockThreads, stream, tensor,
                         chunk, std::uint64_t{1}, 2.0, chunks));
    }
    EXPECT_CUDA(cudaStreamSynchronize(stream));
    EXPECT_EQ(chunks->power_sum, static_cast<double>(kCount) * rank * rank);
    EXPECT_EQ(chunks->max_abs, rank);
    EXPECT_EQ(chunks->zero_count, rank == 0 ? kCount : 0U);
  });
  EXPECT_EQ(emulator::runtime_counters().bytes_read, 16U * 3U * kCount * sizeof(float));
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
