// The emulator finds bugs: kernels broken on purpose, each of which it must report, beside the same
// kernel unbroken, which it must not.
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/memory.cuh"
#include "tests/emulator/emulate.h"
#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::emulate;
using emulator::Finding;
using emulator::Launcher;
using emulator::Order;

constexpr unsigned kThreads = 64;

bool found(Launcher& launcher, Finding finding) {
  const auto all = launcher.take_violations();
  return std::any_of(all.begin(), all.end(), [&](const auto& v) { return v.finding == finding; });
}

__global__ void reverse_kernel(int* out, bool with_barrier) {
  GRADWARDEN_SHARED(int, tile, kThreads);
  tile[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  out[threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

__global__ void sum_kernel(int* out, bool initialise) {
  GRADWARDEN_SHARED(int, sum, 1);
  if (initialise && threadIdx.x == 0) sum[0] = 0;
  __syncthreads();
  atomicAdd(&sum[0], 1);
  __syncthreads();
  if (threadIdx.x == 0) *out = sum[0];
}

__global__ void sum_without_atomic_kernel(int* out) {
  GRADWARDEN_SHARED(int, sum, 1);
  if (threadIdx.x == 0) sum[0] = 0;
  __syncthreads();
  sum[0] += 1;
  __syncthreads();
  if (threadIdx.x == 0) *out = sum[0];
}

__global__ void count_kernel(std::uint32_t* count, bool atomic) {
  if (atomic)
    atomicAdd(global_word(count), 1U);
  else
    *global_word(count) += 1U;
}

__global__ void early_return_kernel(bool broken) {
  if (broken && threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void two_barriers_kernel(bool broken) {
  if (broken && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void same_barrier_kernel() {
  for (int i = 0; i < 3; ++i) __syncthreads();
}

__global__ void half_warp_shuffle_kernel(unsigned* out, unsigned lanes) {
  unsigned value = threadIdx.x;
  if (threadIdx.x % kWarpSize < lanes) value = __shfl_xor_sync(kFullMask, value, 1);
  out[threadIdx.x] = value;
}

__global__ void mixed_shuffle_kernel(unsigned* out) {
  unsigned value = threadIdx.x;
  if (threadIdx.x % 2 == 0)
    value = __shfl_xor_sync(kFullMask, value, 1);
  else
    value = __shfl_sync(kFullMask, value, 0);
  out[threadIdx.x] = value;
}

__global__ void partial_mask_kernel(unsigned* out) {
  out[threadIdx.x] = __shfl_down_sync(0xffffU, threadIdx.x, 1);
}

__global__ void read_elements_kernel(const unsigned char* data, unsigned count, float* out) {
  float sum = 0;
  for (unsigned i = threadIdx.x; i < count; i += blockDim.x)
    sum += load_scalar<float>(data + 4 * i);
  out[threadIdx.x] = sum;
}

__global__ void write_vectors_kernel(unsigned char* data, unsigned vectors) {
  for (unsigned i = threadIdx.x; i < vectors; i += blockDim.x)
    store_vector(data + 16 * i, Vector{});
}

__global__ void shared_index_kernel(unsigned reach) {
  GRADWARDEN_SHARED(unsigned, tile, kThreads);
  tile[threadIdx.x + reach] = 1;
}

// Two uses of one tile without the barrier between a read and the next write.
__global__ void reuse_kernel(int* out, bool with_barrier) {
  GRADWARDEN_SHARED(int, tile, kThreads);
  int value = static_cast<int>(threadIdx.x);
  for (int i = 0; i < 2; ++i) {
    tile[threadIdx.x] = value;
    __syncthreads();
    value = tile[(threadIdx.x + 1) % kThreads];
    if (with_barrier) __syncthreads();
  }
  out[threadIdx.x] = value;
}

TEST(Emulator, ReportsAMissingBarrierInEveryOrder) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    std::vector<int> out(kThreads);
    emulate(reverse_kernel, 1, kThreads, launcher, out.data(), false);
    const auto violations = launcher.take_violations();
    ASSERT_FALSE(violations.empty());
    EXPECT_NE(violations[0].what.find("tile["), std::string::npos) << violations[0].what;
    emulate(reverse_kernel, 1, kThreads, launcher, out.data(), true);
    expect_clean(launcher);
    EXPECT_EQ(out[0], static_cast<int>(kThreads) - 1);
  }
}

TEST(Emulator, ReportsAMissingBarrierBeforeSharedMemoryIsWrittenAgain) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    std::vector<int> out(kThreads);
    emulate(reuse_kernel, 1, kThreads, launcher, out.data(), false);
    EXPECT_TRUE(found(launcher, Finding::kSharedRace));
    emulate(reuse_kernel, 1, kThreads, launcher, out.data(), true);
    expect_clean(launcher);
    EXPECT_EQ(out[0], 2);
  }
}

TEST(Emulator, ReportsSharedMemoryReadBeforeItIsWritten) {
  Launcher launcher;
  int out = 0;
  emulate(sum_kernel, 2, kThreads, launcher, &out, false);
  EXPECT_TRUE(found(launcher, Finding::kUninitialisedShared));
  emulate(sum_kernel, 2, kThreads, launcher, &out, true);
  expect_clean(launcher);
  EXPECT_EQ(out, static_cast<int>(kThreads));
}

TEST(Emulator, ReportsAPlainAddToSharedMemoryInPlaceOfAnAtomic) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    int out = 0;
    emulate(sum_without_atomic_kernel, 1, kThreads, launcher, &out);
    EXPECT_TRUE(found(launcher, Finding::kSharedRace));
  }
}

TEST(Emulator, ReportsAPlainAddToGlobalMemoryInPlaceOfAnAtomic) {
  Launcher launcher;
  std::uint32_t count = 0;
  emulate(count_kernel, 3, kThreads, launcher, &count, false);
  EXPECT_TRUE(found(launcher, Finding::kGlobalRace));
  count = 0;
  emulate(count_kernel, 3, kThreads, launcher, &count, true);
  expect_clean(launcher);
  EXPECT_EQ(count, 3 * kThreads);
}

TEST(Emulator, ReportsABarrierThatAThreadDoesNotReach) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    emulate(early_return_kernel, 1, kThreads, launcher, true);
    EXPECT_TRUE(found(launcher, Finding::kDivergentBarrier));
    emulate(early_return_kernel, 1, kThreads, launcher, false);
    expect_clean(launcher);
  }
}

TEST(Emulator, ReportsThreadsThatWaitAtDifferentBarriers) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    emulate(two_barriers_kernel, 1, kThreads, launcher, true);
    EXPECT_TRUE(found(launcher, Finding::kDivergentBarrier));
    emulate(two_barriers_kernel, 1, kThreads, launcher, false);
    emulate(same_barrier_kernel, 2, kThreads, launcher);
    expect_clean(launcher);
  }
}

TEST(Emulator, ReportsAShuffleWhoseMaskNamesAbsentLanes) {
  for (const Order order : kOrders) {
    Launcher launcher(order);
    std::vector<unsigned> out(kThreads);
    emulate(half_warp_shuffle_kernel, 1, kThreads, launcher, out.data(), 16U);
    EXPECT_TRUE(found(launcher, Finding::kIncompleteShuffle));
    emulate(half_warp_shuffle_kernel, 1, kThreads, launcher, out.data(), 32U);
    expect_clean(launcher);
    EXPECT_EQ(out[4], 5U);
    emulate(mixed_shuffle_kernel, 1, kThreads, launcher, out.data());
    EXPECT_TRUE(found(launcher, Finding::kIncompleteShuffle));
    emulate(partial_mask_kernel, 1, kThreads, launcher, out.data());
    EXPECT_TRUE(found(launcher, Finding::kIncompleteShuffle));
  }
}

TEST(Emulator, ReportsReadsAndWritesPastTheEndOfGradientMemory) {
  Launcher launcher;
  std::vector<float> out(kThreads);
  alignas(16) static unsigned char data[1024] = {};
  launcher.register_buffer(data, 1000);
  emulate(read_elements_kernel, 1, kThreads, launcher, data, 250U, out.data());
  emulate(write_vectors_kernel, 1, kThreads, launcher, data, 62U);
  expect_clean(launcher);
  EXPECT_EQ(launcher.counters().bytes_read, 1000U);
  EXPECT_EQ(launcher.counters().bytes_written, 62U * 16U);
  emulate(read_elements_kernel, 1, kThreads, launcher, data, 251U, out.data());
  EXPECT_TRUE(found(launcher, Finding::kGlobalBounds));
  emulate(write_vectors_kernel, 1, kThreads, launcher, data, 63U);
  EXPECT_TRUE(found(launcher, Finding::kGlobalBounds));
}

TEST(Emulator, ReportsAnIndexPastTheEndOfSharedMemory) {
  Launcher launcher;
  emulate(shared_index_kernel, 1, kThreads, launcher, 0U);
  expect_clean(launcher);
  emulate(shared_index_kernel, 1, kThreads, launcher, 1U);
  EXPECT_TRUE(found(launcher, Finding::kSharedBounds));
}

TEST(Emulator, RefusesBlocksThatAreNoMultipleOfAWarp) {
  Launcher launcher;
  EXPECT_THROW(emulate(same_barrier_kernel, 1, 33, launcher), std::invalid_argument);
  EXPECT_THROW(emulate(same_barrier_kernel, 0, 32, launcher), std::invalid_argument);
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
