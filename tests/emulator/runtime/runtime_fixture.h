// For tests on the emulated CUDA runtime: a fresh machine for each, and nothing found wrong at its
// end.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_RUNTIME_FIXTURE_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_RUNTIME_FIXTURE_H_

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <nccl.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/emulator/runtime/control.h"

namespace gradwarden::emulator {

#define EXPECT_CUDA(call) EXPECT_EQ((call), cudaSuccess)
#define ASSERT_CUDA(call) ASSERT_EQ((call), cudaSuccess)
#define EXPECT_NCCL(call) EXPECT_EQ((call), ncclSuccess)

class RuntimeTest : public testing::Test {
 protected:
  void SetUp() override {
    reset_runtime();
    // GRADWARDEN_TEST_SEED chooses other pauses and orders.
    if (const char* seed = std::getenv("GRADWARDEN_TEST_SEED"))
      set_runtime_seed(std::strtoull(seed, nullptr, 10));
  }
  void TearDown() override {
    for (const std::string& what : take_runtime_violations()) ADD_FAILURE() << what;
    reset_runtime();
  }

  template <typename T>
  static T* device_array(std::size_t count) {
    void* at = nullptr;
    EXPECT_CUDA(cudaMalloc(&at, count * sizeof(T)));
    return static_cast<T*>(at);
  }
  template <typename T>
  static T* pinned_array(std::size_t count) {
    void* at = nullptr;
    EXPECT_CUDA(cudaHostAlloc(&at, count * sizeof(T), cudaHostAllocMapped));
    return static_cast<T*>(at);
  }
  static cudaStream_t new_stream() {
    cudaStream_t stream = nullptr;
    EXPECT_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return stream;
  }
  static cudaEvent_t new_event() {
    cudaEvent_t event = nullptr;
    EXPECT_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return event;
  }
};

// Waits for a condition; false if it does not come true within a long time.
inline bool eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

// Holds a stream until it is opened.
class Gate {
 public:
  void hold(cudaStream_t stream) {
    EXPECT_CUDA(cudaLaunchHostFunc(
        stream,
        [](void* self) {
          auto& gate = *static_cast<Gate*>(self);
          gate.reached_ = true;
          while (!gate.open_) std::this_thread::yield();
        },
        this));
  }
  void open() { open_ = true; }
  bool reached() const { return reached_; }

 private:
  std::atomic<bool> open_{false};
  std::atomic<bool> reached_{false};
};

// Runs `body(rank)` on a thread per rank, each with the device of its number, and joins them.
inline void run_ranks(int ranks, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&body, rank] {
      EXPECT_CUDA(cudaSetDevice(rank));
      body(rank);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_RUNTIME_FIXTURE_H_
