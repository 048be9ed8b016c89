#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <vector>

#include "daemon/cli/plot.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr PlotStyle kAscii{.height = 5, .utf8 = false};

PlotColumn column(std::uint64_t step, double low, double high, char mark = ' ') {
  return {step, step, low, high, false, mark};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(Plot, EachDecadeHasEquallyManyRows) {
  const auto lines =
      lines_of(plot({column(1, 1, 1), column(2, 10, 10), column(3, 100, 100)}, kAscii));
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[0], "      100 |  #");
  EXPECT_EQ(lines[1], "          |");
  EXPECT_EQ(lines[2], "       10 | #");
  EXPECT_EQ(lines[3], "          |");
  EXPECT_EQ(lines[4], "        1 |#");
  EXPECT_EQ(lines[5], "           step 1 to 3");
}

TEST(Plot, AColumnReachesFromItsMinimumToItsMaximum) {
  const auto lines = lines_of(plot({column(1, 1, 100), column(2, 10, 100)}, kAscii));
  EXPECT_EQ(lines[0], "      100 |##");
  EXPECT_EQ(lines[2], "       10 |##");
  EXPECT_EQ(lines[3], "          |#");
  EXPECT_EQ(lines[4], "        1 |#");
}

TEST(Plot, AFlatLineStandsInTheMiddle) {
  const auto lines = lines_of(plot({column(1, 2, 2), column(2, 2, 2)}, kAscii));
  EXPECT_EQ(lines[2], "        2 |##");
  for (const int row : {0, 1, 3, 4})
    EXPECT_THAT(lines[static_cast<std::size_t>(row)], Not(HasSubstr("#")));
}

TEST(Plot, NothingToDrawIsAnEmptyString) {
  EXPECT_THAT(plot({}, kAscii), IsEmpty());
  EXPECT_THAT(plot({{1, 1, 0, 0, true, 'N'}}, kAscii), IsEmpty());
}

TEST(Plot, MarksStandUnderTheirColumnsAndNonFiniteStepsAreMarkedWithoutAnEvent) {
  std::vector<PlotColumn> columns = {column(1, 1, 1), column(2, 9, 9, '^'), column(3, 1, 1)};
  columns.push_back({4, 4, 0, 0, true, ' '});
  const auto lines = lines_of(plot(columns, kAscii));
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[5], "            ^ N");
}

TEST(Plot, ExtremeNumbersKeepTheAxisStraight) {
  const auto lines =
      lines_of(plot({column(1, 1.5e-300, 1.5e-300), column(2, 1.25e300, 1.25e300)}, kAscii));
  for (std::size_t row = 0; row < 5; ++row) EXPECT_EQ(lines[row].find('|'), 10u) << lines[row];
}

TEST(Plot, Utf8AndAsciiDrawTheSameShape) {
  const std::vector<PlotColumn> columns = {column(1, 1, 3), column(2, 2, 9)};
  const auto plain = lines_of(plot(columns, kAscii));
  const auto pretty = lines_of(plot(columns, {.height = 5, .utf8 = true}));
  ASSERT_EQ(plain.size(), pretty.size());
  for (std::size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(display_width(plain[i]), display_width(pretty[i]));
    EXPECT_EQ(plain[i].find_first_not_of("\x20\x21#|+-.0123456789abcdefghijklmnopqrstuvwxyz"),
              std::string::npos);
  }
  EXPECT_THAT(pretty[0], HasSubstr("\u2588"));
}

TEST(Plot, StepNumbersStandAtBothEndsWhereThereIsRoom) {
  std::vector<PlotColumn> columns;
  for (std::uint64_t i = 0; i < 30; ++i) columns.push_back(column(100 + i, 1, 2));
  EXPECT_EQ(lines_of(plot(columns, kAscii)).back(), "           step 100                   129");
  columns.resize(1);
  EXPECT_EQ(lines_of(plot(columns, kAscii)).back(), "           step 100");
}

TEST(PlotJoin, KeepsExtremesMarksAndStepsWithinTheLimit) {
  std::vector<PlotColumn> columns;
  for (std::uint64_t i = 1; i <= 1000; ++i) columns.push_back(column(i, 1, 1));
  columns[500] = column(501, 40, 40, '^');
  columns[501] = {502, 502, 0, 0, true, ' '};
  const auto out = joined(columns, 30);
  ASSERT_LE(out.size(), 30u);
  EXPECT_EQ(out.front().first_step, 1u);
  EXPECT_EQ(out.back().last_step, 1000u);
  double high = 0;
  int marks = 0;
  int non_finite = 0;
  for (const PlotColumn& one : out) {
    EXPECT_EQ(one.low, 1);
    high = std::max(high, one.high);
    marks += one.mark == '^' ? 1 : 0;
    non_finite += one.non_finite ? 1 : 0;
  }
  EXPECT_EQ(high, 40);
  EXPECT_EQ(marks, 1);
  EXPECT_EQ(non_finite, 1);
}

TEST(PlotJoin, FewColumnsAreLeftAsTheyAre) {
  EXPECT_EQ(joined({column(1, 1, 1), column(2, 2, 2)}, 10).size(), 2u);
  EXPECT_THAT(joined({}, 10), IsEmpty());
}

}  // namespace
}  // namespace gradwarden::cli
