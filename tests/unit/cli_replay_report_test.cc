// What `gradwarden replay` prints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/cli/replay_report.h"

namespace gradwarden::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ReplayedFile file_with_a_spike() {
  ReplayedFile file;
  file.path = "main.log";
  file.content.format = "CSV";
  for (std::uint64_t i = 0; i < 1200; ++i) {
    replay::LogRow& row = file.content.rows.emplace_back();
    row.step = i;
    row.loss = i == 601 ? 9.0 : 3.0;
    row.grad_norm = i == 600 ? 12.0 : 0.5 + 0.01 * static_cast<double>(i % 7);
  }
  file.result = replay::replay(file.content, {});
  return file;
}

TEST(ReplayReport, JsonHasEveryFieldOfTheInterface) {
  const Json json = replay_json({file_with_a_spike()});
  ASSERT_EQ(json["events"].size(), 1u);
  const Json& event = json["events"][0];
  for (const char* key : {"kind", "severity", "start_step", "peak_step", "end_step", "signal",
                          "value", "baseline", "cause", "confidence", "evidence", "action"}) {
    EXPECT_TRUE(event.contains(key)) << key;
  }
  EXPECT_EQ(event["kind"], "grad_spike");
  EXPECT_EQ(event["severity"], "critical");
  EXPECT_EQ(event["start_step"], 600);
  EXPECT_EQ(event["end_step"], 601);
  EXPECT_EQ(event["joined"]["lead_steps"], 1);
  EXPECT_FALSE(event.contains("file"));
  EXPECT_EQ(json["files"][0]["rows"], 1200);
  EXPECT_EQ(json["files"][0]["counterfactuals"]["skipped"], 1);
}

TEST(ReplayReport, EventsOfSeveralFilesNameTheirFile) {
  ReplayedFile other = file_with_a_spike();
  other.path = "other.log";
  const Json json = replay_json({file_with_a_spike(), other});
  ASSERT_EQ(json["events"].size(), 2u);
  EXPECT_EQ(json["events"][1]["file"], "other.log");
}

TEST(ReplayReport, TextSaysWhatTheRulesWouldHaveDone) {
  ReplayedFile file = file_with_a_spike();
  const std::string text = replay_text(file, 200);
  EXPECT_THAT(text, HasSubstr("main.log: CSV, 1,200 rows, steps 0 to 1199\n"));
  EXPECT_THAT(text, HasSubstr("clipping at 1 fired on 0.08 % of steps; skipping at 3 x would have "
                              "skipped 1 of 1,200 steps"));
  EXPECT_THAT(text, HasSubstr("suggested: clip at"));
  EXPECT_THAT(text, HasSubstr("1 incident, 0 events that are information"));
  EXPECT_THAT(text, HasSubstr("critical: grad_spike, steps 600-601\n"));
  EXPECT_THAT(text, HasSubstr("the loss rose 1 step later, to 9 at step 601"));
  EXPECT_THAT(text, Not(HasSubstr("could not be read")));
  file.content.unreadable = 2;
  EXPECT_THAT(replay_text(file, 200), HasSubstr("2 records could not be read and left out"));
}

}  // namespace
}  // namespace gradwarden::cli
