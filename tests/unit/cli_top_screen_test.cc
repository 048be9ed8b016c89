// The screen of `gradwarden top`.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "daemon/cli/text.h"
#include "daemon/cli/top_screen.h"

namespace gradwarden::cli {
namespace {

using ::testing::HasSubstr;

TopRun run_of(const std::string& name, std::uint64_t open_events) {
  TopRun run;
  run.summary.set_run(name);
  run.summary.set_last_step(1200);
  run.summary.set_grad_norm(0.5);
  run.summary.set_open_events(open_events);
  run.summary.set_last_report_unix_ns(1'000'000'000);
  run.norms = {0.5, 5};
  return run;
}

v1::Event event_of(std::uint64_t id) {
  v1::Event event;
  event.set_id(id);
  event.set_run("llama");
  event.set_kind("grad_spike");
  event.set_severity(v1::SEVERITY_WARNING);
  event.set_message("grad norm " + std::to_string(id));
  return event;
}

TEST(Sparkline, SpansItsRangeInTheLogDomainAndMarksWhatIsNotFinite) {
  EXPECT_EQ(sparkline({1, 10, 100}, 10, false), "158");
  EXPECT_EQ(sparkline({1, NAN, 0, 100}, 10, false), "1xx8");
  EXPECT_EQ(sparkline({1, 100}, 10, true), "▁█");
  EXPECT_EQ(sparkline({3, 3, 3}, 10, false), "111");
  EXPECT_EQ(sparkline({}, 10, true), "");
}

TEST(Sparkline, ShowsTheLastOfMoreThanFit) { EXPECT_EQ(sparkline({9, 9, 1, 2}, 2, false), "18"); }

TEST(TopScreen, ShowsRunsAndTheNewestEventFirst) {
  TopView view{
      {run_of("llama", 2), run_of("vision", 0)}, {event_of(1), event_of(2)}, "", 2'000'000'000};
  const std::vector<std::string> lines = top_lines(view, 140, 30, false);
  EXPECT_THAT(lines[0], HasSubstr("2 runs, 2 open events"));
  EXPECT_THAT(lines[2], HasSubstr("llama"));
  EXPECT_THAT(lines[2], HasSubstr("! 2 open events"));
  EXPECT_THAT(lines[2], HasSubstr("18"));
  EXPECT_THAT(lines[3], HasSubstr("running"));
  EXPECT_THAT(lines[6], HasSubstr("grad norm 2"));
  EXPECT_THAT(lines[7], HasSubstr("grad norm 1"));
}

TEST(TopScreen, FitsAnyTerminal) {
  TopView view;
  for (int i = 0; i < 100; ++i)
    view.runs.push_back(run_of("run-with-a-long-name-" + std::to_string(i), 1));
  for (std::uint64_t i = 1; i <= 50; ++i) view.events.push_back(event_of(i));
  for (const std::size_t height : {1U, 3U, 10U, 24U, 60U}) {
    const std::vector<std::string> lines = top_lines(view, 60, height, true);
    EXPECT_LE(lines.size(), height);
    for (const std::string& line : lines) EXPECT_LE(display_width(line), 60U) << line;
  }
}

TEST(TopScreen, SaysWhenThereIsNothingAndWhenItIsOld) {
  TopView view;
  EXPECT_THAT(top_lines(view, 100, 20, true)[1], HasSubstr("no runs yet"));
  view.trouble = "NO ANSWER";
  EXPECT_THAT(top_lines(view, 100, 20, true)[0], HasSubstr("NO ANSWER"));
}

}  // namespace
}  // namespace gradwarden::cli
