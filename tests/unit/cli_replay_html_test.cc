// The page that `gradwarden replay --html` writes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "daemon/cli/replay_html.h"

namespace gradwarden::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ReplayedFile file_of(std::size_t rows) {
  ReplayedFile file;
  file.path = "a<b>&\"c\".log";
  file.content.format = "CSV";
  for (std::uint64_t i = 0; i < rows; ++i) {
    replay::LogRow& row = file.content.rows.emplace_back();
    row.step = i;
    row.loss = i == 70 ? NAN : 3.0;
    row.grad_norm = i == 60 ? 12.0 : 0.5;
  }
  file.result = replay::replay(file.content, {});
  return file;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(ReplayHtml, NeedsNothingFromOutsideAndEscapesWhatTheLogSays) {
  const std::string page = replay_html({file_of(200)});
  EXPECT_THAT(page, HasSubstr("<h2>a&lt;b&gt;&amp;&quot;c&quot;.log</h2>"));
  for (const char* outside : {"<script", "http:", "https:", "src=", "href=", "url(", "a<b>"}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
  EXPECT_EQ(count_of(page, "<svg"), count_of(page, "</svg>"));
}

TEST(ReplayHtml, MarksEachEventInEachPlotAndListsIt) {
  const ReplayedFile file = file_of(200);
  ASSERT_EQ(file.result.incidents.size(), 2u);
  const std::string page = replay_html({file});
  EXPECT_EQ(count_of(page, "<svg"), 2u);  // grad norm and loss
  EXPECT_EQ(count_of(page, "<rect class=\"warning\""), 2u);
  EXPECT_EQ(count_of(page, "<rect class=\"critical\""), 2u);
  EXPECT_EQ(count_of(page, "<td class="), 2u);
  EXPECT_THAT(page, Not(HasSubstr("nan")));
}

TEST(ReplayHtml, ALongLogIsDrawnWithABoundedNumberOfPoints) {
  const std::string page = replay_html({file_of(100000)});
  EXPECT_LT(page.size(), 60000u);
}

TEST(ReplayHtml, OneRowIsDrawnWithoutDividingByZero) {
  const std::string page = replay_html({file_of(1)});
  EXPECT_EQ(count_of(page, "<svg"), 2u);
  EXPECT_THAT(page, HasSubstr("d=\"M70.0 195.0\""));
  EXPECT_THAT(page, HasSubstr("no events"));
}

}  // namespace
}  // namespace gradwarden::cli
