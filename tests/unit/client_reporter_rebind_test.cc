// A guard that binds again: the same tables keep the attempt, others begin one that all ranks know.
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "gradwarden/reporter.h"
#include "tests/unit/fake_daemon.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden {
namespace {

using test::FakeDaemon;
using test::options_for;
using test::record_of;
using test::shape_of;

TEST(ReporterBoundAgain, GoesOnWithTheAttemptWhereOnlyMemoryMoved) {
  FakeDaemon daemon;
  SingleRank ranks;
  Reporter reporter(options_for(daemon.address()), ranks);
  const std::string attempt = reporter.attempt();
  for (std::uint64_t step = 1; step <= 3; ++step) {
    reporter.begin(shape_of());
    reporter.submit(record_of(step));
  }
  EXPECT_TRUE(reporter.close());
  EXPECT_EQ(reporter.attempt(), attempt);
  EXPECT_EQ(daemon.hello().attempt(), attempt);
  EXPECT_EQ(daemon.stored().size(), 3U);
  EXPECT_EQ(daemon.goodbyes(), 1);
}

// Here only rank 0 has something to write; the exchange of the new id must still find both.
TEST(ReporterBoundAgain, SharesANewAttemptWithRanksThatReportNothing) {
  const std::string path = ::testing::TempDir() + "rebind-" + std::to_string(::getpid()) + ".gwh";
  ThreadRanks ranks(2, std::chrono::seconds(20));
  std::array<std::string, 2> first;
  std::array<std::string, 2> second;
  const auto run = [&](int rank) {
    ReporterOptions options = options_for("");
    if (rank == 0) options.history_path = path;
    Reporter reporter(options, ranks.rank(rank));
    RunShape shape = shape_of(static_cast<std::uint32_t>(rank), 2);
    reporter.begin(shape);
    first[static_cast<std::size_t>(rank)] = reporter.attempt();
    shape.groups[0] = "other";
    reporter.begin(shape);
    second[static_cast<std::size_t>(rank)] = reporter.attempt();
  };
  std::thread other(run, 1);
  EXPECT_NO_THROW(run(0));
  other.join();
  std::filesystem::remove(path);
  EXPECT_EQ(first[0], first[1]);
  EXPECT_EQ(second[0], second[1]);
  EXPECT_NE(first[0], second[0]);
}

}  // namespace
}  // namespace gradwarden
