#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "daemon/cli/event_text.h"
#include "daemon/cli/text.h"

namespace gradwarden::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

v1::Event spike() {
  v1::Event event;
  event.set_id(7);
  event.set_revision(1);
  event.set_run("demo");
  event.set_attempt("a1");
  event.set_kind("grad_spike");
  event.set_severity(v1::SEVERITY_WARNING);
  event.set_start_step(90);
  event.set_peak_step(92);
  event.set_signal("grad_norm");
  event.set_value(14.25);
  event.set_flagged_steps(1);
  event.set_start_unix_ns(1'700'000'000'000'000'000);
  event.set_message("grad norm 14.25 is 12 x the mean");
  event.set_action("look at the batches named here");
  event.add_batch_ids(std::string("chunk-89"));
  return event;
}

TEST(EventText, TheLineOfABeginningSaysWhatWhereAndWhatToDo) {
  const std::string line = event_line(spike());
  EXPECT_THAT(line,
              AllOf(HasSubstr("warning  demo  step 90  grad_spike"), HasSubstr("12 x the mean"),
                    HasSubstr("batches: chunk-89"), HasSubstr("to do: look at")));
  EXPECT_THAT(line, Not(HasSubstr("\n")));
}

TEST(EventText, TheLineOfAnEndSaysHowLongAndHowHighInsteadOfRepeatingAll) {
  v1::Event event = spike();
  event.set_revision(3);
  event.set_end_step(95);
  event.set_end_unix_ns(1'700'000'001'000'000'000);
  event.set_flagged_steps(6);
  const std::string line = event_line(event);
  EXPECT_THAT(
      line,
      HasSubstr("steps 90-95  grad_spike  ended after 6 flagged steps, peak 14.25 at step 92"));
  EXPECT_THAT(line, Not(HasSubstr("to do")));
}

TEST(EventText, AnEventThatCameAsOneMessageKeepsItsStory) {
  v1::Event event = spike();
  event.set_end_step(90);
  EXPECT_THAT(event_line(event), HasSubstr("12 x the mean"));
}

TEST(EventText, ManyBatchesAreCountedNotListed) {
  v1::Event event = spike();
  for (int i = 0; i < 20; ++i) event.add_batch_ids(std::string("b").append(std::to_string(i)));
  EXPECT_THAT(event_line(event), HasSubstr("batches: chunk-89, b0, b1, b2 and 17 more"));
}

TEST(EventText, BlocksStayWithinTheWidth) {
  for (const std::size_t width : {40u, 80u, 200u}) {
    std::istringstream lines(event_block(spike(), true, width));
    std::string line;
    while (std::getline(lines, line)) EXPECT_LE(display_width(line), width) << line;
  }
}

TEST(EventText, ASeverityFromANewerDaemonIsUnspecified) {
  v1::Event event = spike();
  event.set_severity(static_cast<v1::Severity>(99));
  EXPECT_THAT(event_line(event), HasSubstr("unspecified  demo"));
}

}  // namespace
}  // namespace gradwarden::cli
