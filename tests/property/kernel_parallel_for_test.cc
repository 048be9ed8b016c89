#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cpu/parallel_for.h"

namespace gradwarden::kernels {
namespace {

struct Counters {
  std::vector<std::atomic<int>> calls;
  explicit Counters(std::size_t count) : calls(count) {}
};

void count_call(void* context, std::uint64_t index) noexcept {
  static_cast<Counters*>(context)->calls[index].fetch_add(1, std::memory_order_relaxed);
}

TEST(KernelParallelFor, CallsTheBodyOnceForEachIndex) {
  for (const unsigned threads : {0u, 1u, 2u, 3u, 7u}) {
    ParallelFor pool(threads);
    for (const std::size_t count : {0, 1, 2, 3, 10, 1000}) {
      Counters counters(count);
      pool.run(count, count_call, &counters);
      for (std::size_t i = 0; i < count; ++i) {
        ASSERT_EQ(counters.calls[i].load(), 1) << threads << " threads, index " << i;
      }
    }
  }
}

TEST(KernelParallelFor, HasTheCallerAsOneOfItsThreads) {
  EXPECT_EQ(ParallelFor(0).threads(), 1u);
  EXPECT_EQ(ParallelFor(1).threads(), 1u);
  EXPECT_EQ(ParallelFor(4).threads(), 4u);
}

// The writes are plain, so that ThreadSanitizer sees any hand-over that lacks an ordering.
struct Plain {
  std::vector<std::uint64_t> input;
  std::vector<std::uint64_t> output;
};

void square(void* context, std::uint64_t index) noexcept {
  auto& plain = *static_cast<Plain*>(context);
  plain.output[index] = plain.input[index] * plain.input[index];
}

TEST(KernelParallelFor, OrdersWritesBeforeAndAfterEachRun) {
  ParallelFor pool(3);
  std::mt19937_64 random(1);
  for (int round = 0; round < 5000; ++round) {
    const std::size_t count = random() % 20;
    Plain plain;
    for (std::size_t i = 0; i < count; ++i) plain.input.push_back(random() % 1000);
    plain.output.assign(count, 0);
    pool.run(count, square, &plain);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_EQ(plain.output[i], plain.input[i] * plain.input[i]) << "round " << round;
    }
  }
}

// Waits, in one index, for the other to have started: returns only if two threads are at work.
struct Meeting {
  std::atomic<int> arrived{0};
};

void meet(void* context, std::uint64_t) noexcept {
  auto& meeting = *static_cast<Meeting*>(context);
  meeting.arrived.fetch_add(1);
  while (meeting.arrived.load() < 2) std::this_thread::yield();
}

TEST(KernelParallelFor, WakesSleepingWorkersToRunAlongside) {
  ParallelFor pool(2);
  for (int round = 0; round < 200; ++round) {
    // Nothing shows that a worker sleeps; this is many times as long as it spins.
    if (round % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Meeting meeting;
    pool.run(2, meet, &meeting);
    ASSERT_EQ(meeting.arrived.load(), 2);
  }
}

TEST(KernelParallelFor, EndsCleanlyAtAnyMoment) {
  for (int round = 0; round < 200; ++round) {
    ParallelFor pool(4);
    if (round % 3 == 0) continue;
    Counters counters(50);
    pool.run(counters.calls.size(), count_call, &counters);
    const int total =
        std::accumulate(counters.calls.begin(), counters.calls.end(), 0,
                        [](int sum, const auto& calls) { return sum + calls.load(); });
    ASSERT_EQ(total, 50);
  }
}

TEST(KernelParallelFor, PoolsOfDifferentThreadsDoNotDisturbEachOther) {
  std::vector<std::thread> owners;
  std::atomic<int> wrong{0};
  for (int owner = 0; owner < 4; ++owner) {
    owners.emplace_back([&wrong] {
      ParallelFor pool(2);
      for (int round = 0; round < 300; ++round) {
        Counters counters(10);
        pool.run(counters.calls.size(), count_call, &counters);
        for (const auto& calls : counters.calls) wrong += calls.load() != 1;
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace gradwarden::kernels
