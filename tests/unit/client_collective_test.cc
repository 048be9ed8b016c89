#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/error.h"

namespace gradwarden {
namespace {

using std::chrono::milliseconds;

TEST(ThreadRanks, GatherEveryRanksBytesInRankOrderManyTimes) {
  constexpr int kRanks = 5;
  ThreadRanks ranks(kRanks);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int r = 0; r < kRanks; ++r) {
    threads.emplace_back([&, r] {
      for (int round = 0; round < 500; ++round) {
        const int mine = round * 100 + r;
        int all[kRanks] = {};
        if (!ranks.rank(r).all_gather(&mine, all, sizeof mine)) ++wrong;
        for (int other = 0; other < kRanks; ++other) wrong += all[other] != round * 100 + other;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadRanks, FailWhenARankStaysAwayInsteadOfHanging) {
  ThreadRanks ranks(3, milliseconds(100));
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {  // rank 2 never comes
    threads.emplace_back([&, r] {
      const int mine = r;
      int all[3] = {};
      if (!ranks.rank(r).all_gather(&mine, all, sizeof mine)) ++failed;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(failed, 2);
  EXPECT_NE(ranks.rank(0).last_error().find("waited in vain"), std::string::npos);
}

TEST(ThreadRanks, FailOnAllRanksWhenTheSizesDiffer) {
  ThreadRanks ranks(2, milliseconds(2000));
  std::atomic<int> failed{0};
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; ++r) {
    threads.emplace_back([&, r] {
      const char mine[16] = {};
      char all[64] = {};
      if (!ranks.rank(r).all_gather(mine, all, r == 0 ? 8 : 16)) ++failed;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(failed, 2);
}

TEST(CallbackCollective, TreatsAnExceptionOfTheCallersFunctionAsAFailure) {
  CallbackCollective ranks(
      0, 2, [](const void*, void*, std::size_t) -> bool { throw std::runtime_error("link down"); });
  int mine = 1;
  int all[2] = {};
  EXPECT_FALSE(ranks.all_gather(&mine, all, sizeof mine));
  EXPECT_NE(ranks.last_error().find("link down"), std::string::npos);
}

TEST(Collectives, RefuseImpossibleRanksWhenTheyAreMade) {
  EXPECT_THROW(ThreadRanks(0), Error);
  ThreadRanks ranks(2);
  EXPECT_THROW(ranks.rank(2), Error);
  const auto copy = [](const void*, void*, std::size_t) { return true; };
  EXPECT_THROW(CallbackCollective(2, 2, copy), Error);
  EXPECT_THROW(CallbackCollective(0, 1, nullptr), Error);
}

}  // namespace
}  // namespace gradwarden
