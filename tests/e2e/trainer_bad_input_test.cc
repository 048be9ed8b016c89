// What the example trainer says to impossible flags and unreadable texts: one line, from one rank,
// exit code 2, on every rank and without a hang.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/trainer_process.h"

namespace gradwarden::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

void expect_refused(const std::vector<std::string>& arguments, const std::string& what,
                    int ranks = 0) {
  const TrainerResult result = train(arguments, ranks);
  const ::testing::Message about = ::testing::Message()
                                   << ::testing::PrintToString(arguments) << '\n'
                                   << result.output;
  EXPECT_EQ(result.exit_code, 2) << about;
  EXPECT_THAT(complaints_of(result.output), ElementsAre(HasSubstr(what))) << about;
}

TEST(TrainerBadInput, FlagsOutsideTheirRangeAreNamedWithWhatIsAllowed) {
  expect_refused({"--steps", "0"}, "--steps: Value 0 not in range 1 to 100000000");
  expect_refused({"--steps", "many"}, "--steps");
  expect_refused({"--hidden", "-3"}, "--hidden: Value -3 not in range 1 to 4096");
  expect_refused({"--learning-rate", "nan"},
                 "--learning-rate is \"nan\"; allowed: a finite number");
  expect_refused({"--learning-rate", "11"}, "--learning-rate: Value 11 not in range");
  expect_refused({"--max-norm", "-1"}, "--max-norm");
  expect_refused({"--skip-above-rolling-mean", "0.5"}, "skip_above_rolling_mean");
  expect_refused({"--seed", "-1"}, "--seed");
  expect_refused({"--daemon", "127.0.0.1:"}, "--daemon is \"127.0.0.1:\"; allowed: host:port");
  expect_refused({"--run", "a/b", "--history", "/dev/null"}, "run");
  expect_refused({"--no-such-flag"}, "--no-such-flag");
}

TEST(TrainerBadInput, FaultsThatCannotHappenAreRefused) {
  expect_refused({"--steps", "10", "--nan-at", "11", "--nan-rank", "0"},
                 "--nan-at is 11; allowed: 1 to --steps (10)");
  expect_refused({"--steps", "10", "--corrupt-batch-at", "0"},
                 "--corrupt-batch-at is 0; allowed: 1");
  expect_refused({"--steps", "10", "--lr-jump-at", "99"}, "--lr-jump-at is 99; allowed: 1");
  expect_refused({"--nan-at", "5", "--nan-rank", "4"}, "--nan-rank is 4; allowed: 0 to 3", 4);
  expect_refused({"--nan-at", "5", "--nan-rank", "-1"}, "--nan-rank is -1; allowed: 0 to 1", 2);
}

TEST(TrainerBadInput, TextsThatAreMissingUnreadableOrTooShortAreNamed) {
  const TemporaryFolder folder;
  const std::string tiny = folder.path() + "/tiny.txt";
  std::ofstream(tiny) << "too short to learn anything from";
  expect_refused({tiny}, "at least 20000 are needed", 4);
  expect_refused({folder.path() + "/missing.txt"}, "missing.txt");
  expect_refused({folder.path()}, folder.path());
  const std::string book = folder.path() + "/book.txt";
  std::ofstream(book) << std::string(30000, 'a');
  expect_refused({book, "--batch", "64", "--length", "1000"}, "--batch x --length x ranks", 2);
}

TEST(TrainerBadInput, OneRankNeedsNoFlagForAFaultThatIsNotAskedFor) {
  const TrainerResult result = train({"--steps", "2"}, 1);
  EXPECT_EQ(result.exit_code, 0) << result.output;
}

TEST(TrainerBadInput, ASummaryThatCannotBeWrittenIsSaid) {
  const TrainerResult result = train({"--steps", "2", "--json", "/nowhere/summary.json"}, 2);
  EXPECT_EQ(result.exit_code, 2) << result.output;
  EXPECT_THAT(complaints_of(result.output), ElementsAre(HasSubstr("/nowhere/summary.json")));
}

}  // namespace
}  // namespace gradwarden::testing
