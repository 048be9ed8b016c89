#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>

#include "daemon/cli/csv.h"

namespace gradwarden::cli {
namespace {

TEST(Csv, DoublesReadBackAsTheSameBits) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 100000; ++i) {
    const auto value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    const std::string text = exact(value);
    ASSERT_EQ(std::bit_cast<std::uint64_t>(std::strtod(text.c_str(), nullptr)),
              std::bit_cast<std::uint64_t>(value))
        << text;
  }
  EXPECT_EQ(exact(0.1), "0.1");
  EXPECT_EQ(exact(-0.0), "-0");
  EXPECT_EQ(exact(std::numeric_limits<double>::denorm_min()), "5e-324");
}

TEST(Csv, NonFiniteNumbersAreWords) {
  EXPECT_EQ(exact(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(exact(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(exact(-std::numeric_limits<double>::infinity()), "-inf");
}

TEST(Csv, EveryLineHasAsManyFieldsAsTheHeading) {
  const std::string line = csv_line("a1", v1::Report());
  const std::string heading = csv_heading();
  EXPECT_EQ(std::count(line.begin(), line.end(), ','),
            std::count(heading.begin(), heading.end(), ','));
  EXPECT_EQ(line.back(), '\n');
}

TEST(Csv, WhatAReportLacksIsEmptyAndZeroIsNot) {
  v1::Report report;
  report.set_step(3);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  EXPECT_EQ(csv_line("a", report), "a,3,0,,0,0,apply,within_limits,,,0,0,0,0,0,0,\n");
  report.set_loss(0);
  report.set_learning_rate(0.5);
  EXPECT_EQ(csv_line("a", report), "a,3,0,0,0,0,apply,within_limits,0.5,,0,0,0,0,0,0,\n");
}

TEST(Csv, FieldsWithSeparatorsAreQuotedAndQuotesDoubled) {
  v1::Report report;
  report.add_batch_ids(std::string("shard 1,\"a\""));
  report.add_batch_ids(std::string("b"));
  const std::string line = csv_line("x,y", report);
  EXPECT_EQ(line.rfind("\"x,y\",0,", 0), 0u) << line;
  EXPECT_NE(line.find(",\"shard 1,\"\"a\"\" b\"\n"), std::string::npos) << line;
}

TEST(Csv, ASkipThatWasOnlyObservedIsNoSkippedStep) {
  v1::Report report;
  report.set_decision(v1::DECISION_SKIP);
  report.set_reason(v1::REASON_NON_FINITE);
  EXPECT_NE(csv_line("a", report).find(",1,\n"), std::string::npos);
  report.set_shadow(true);
  EXPECT_NE(csv_line("a", report).find(",0,\n"), std::string::npos);
}

}  // namespace
}  // namespace gradwarden::cli
