#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <string>

#include "daemon/cli/text.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden::cli {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

TEST(CliText, EnumWordsLoseTheirPrefix) {
  EXPECT_EQ(enum_word(*v1::Decision_descriptor(), v1::DECISION_SKIP), "skip");
  EXPECT_EQ(enum_word(*v1::Reason_descriptor(), v1::REASON_LOSS_SCALE_OVERFLOW),
            "loss_scale_overflow");
  EXPECT_EQ(enum_word(*v1::Reason_descriptor(), 12345), "unspecified");
}

TEST(CliText, IntegersAreWrittenInFullAndFractionsShort) {
  EXPECT_EQ(number(60180), "60180");
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(3.14159265), "3.142");
  EXPECT_EQ(number(1.5e-7), "1.5e-07");
  EXPECT_EQ(number(1e20), "1e+20");
  EXPECT_EQ(number(std::nan("")), "nan");
}

TEST(CliText, AgesGrowCoarserAndTheFutureIsNow) {
  const std::uint64_t now = 1'700'000'000 * kSecond;
  EXPECT_EQ(ago(now - 3 * kSecond, now), "3 s ago");
  EXPECT_EQ(ago(now - 300 * kSecond, now), "5 min ago");
  EXPECT_EQ(ago(now - 3 * 3600 * kSecond, now), "3 h ago");
  EXPECT_EQ(ago(now - 3 * 86400 * kSecond, now), "3 d ago");
  EXPECT_EQ(ago(now + 60 * kSecond, now), "0 s ago");
  EXPECT_EQ(ago(0, now), "-");
}

TEST(CliText, CountsAgreeWithTheirNouns) {
  EXPECT_EQ(counted(1, "step"), "1 step");
  EXPECT_EQ(counted(0, "step"), "0 steps");
  EXPECT_EQ(counted(2, "loss", "losses"), "2 losses");
}

TEST(CliText, TablesAlignNumbersRightAndTextLeft) {
  EXPECT_EQ(table({{"RUN", "STEP", "STATE"}, {"a", "5", "open"}, {"longer", "12345", "x"}}, 80),
            "RUN      STEP  STATE\n"
            "a           5  open\n"
            "longer  12345  x\n");
}

TEST(CliText, TablesCountCharactersNotBytes) {
  EXPECT_EQ(table({{"RUN", "STATE"}, {"\u00e4\u00f6\u00fc\u00df", "x"}, {"abc", "y"}}, 80),
            "RUN   STATE\n"
            "\u00e4\u00f6\u00fc\u00df  x\n"
            "abc   y\n");
}

TEST(CliText, NarrowTablesLeaveOutWhatMattersLeastFirst) {
  const std::vector<std::vector<std::string>> rows = {{"RUN", "STARTED", "RANKS"},
                                                      {"a", "2026-11-22 18:00", "4"}};
  EXPECT_EQ(table(rows, 80, {"STARTED", "RANKS"}),
            "RUN  STARTED           RANKS\na    2026-11-22 18:00      4\n");
  EXPECT_EQ(table(rows, 20, {"STARTED", "RANKS"}), "RUN  RANKS\na        4\n");
  EXPECT_EQ(table(rows, 5, {"STARTED", "RANKS"}), "RUN\na\n");
}

TEST(CliText, WrappingBreaksAtBlanksOnlyAndIndentsEachLine) {
  EXPECT_EQ(wrapped("one two three", 2, 9), "  one two\n  three\n");
  EXPECT_EQ(wrapped("a-word-that-is-too-long b", 0, 5), "a-word-that-is-too-long\nb\n");
  EXPECT_EQ(wrapped("", 2, 20), "");
}

TEST(CliText, TheWidthOfTheTerminalIsKeptWithinReason) {
  for (const auto& [set, expected] : {std::pair{"80", 80u}, {"10", 40u}, {"99999", 1000u}}) {
    setenv("COLUMNS", set, 1);
    EXPECT_EQ(terminal_width(), expected);
  }
  unsetenv("COLUMNS");
}

}  // namespace
}  // namespace gradwarden::cli
