// Which of several daemons a run belongs to.
#include "proto/daemon_choice.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

namespace gradwarden {
namespace {

constexpr char kThree[] = "a-0.a:7460, a-1.a:7460,a-2.a:7460";

TEST(DaemonChoice, OneIsThatOneAndNoneIsNone) {
  EXPECT_EQ(choose_daemon("host:7460", "run"), "host:7460");
  EXPECT_EQ(choose_daemon(" host:7460 ,", "run"), "host:7460");
  EXPECT_EQ(choose_daemon("", "run"), "");
  EXPECT_EQ(choose_daemon(" , ", "run"), "");
}

TEST(DaemonChoice, DoesNotDependOnTheOrderAndSpreadsRunsEvenly) {
  std::map<std::string, int> counts;
  for (int i = 0; i < 3000; ++i) {
    const std::string run = "run-" + std::to_string(i);
    const std::string chosen = choose_daemon(kThree, run);
    EXPECT_EQ(chosen, choose_daemon("a-2.a:7460,a-0.a:7460,a-1.a:7460", run));
    ++counts[chosen];
  }
  ASSERT_EQ(counts.size(), 3u);
  for (const auto& [daemon, count] : counts) EXPECT_NEAR(count, 1000, 150) << daemon;
}

TEST(DaemonChoice, AnotherDaemonTakesRunsOnlyForItself) {
  int moved = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::string run = "run-" + std::to_string(i);
    const std::string before = choose_daemon(kThree, run);
    const std::string after = choose_daemon(std::string(kThree) + ",a-3.a:7460", run);
    if (after != before) {
      EXPECT_EQ(after, "a-3.a:7460");
      ++moved;
    }
  }
  EXPECT_NEAR(moved, 750, 150);
}

TEST(DaemonChoice, StaysWhatItWasInEarlierVersions) {
  // A run that moved with an upgrade would lose its history.
  std::string chosen;
  for (const char* run : {"llama-7b", "gpt", "vision", "run-1", "run-2", "x"}) {
    chosen += choose_daemon(kThree, run).substr(2, 1);
  }
  EXPECT_EQ(chosen, "102112");
}

}  // namespace
}  // namespace gradwarden
