// The `gradwarden` command against a real gradwardend: what it prints, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "tests/e2e/cli_fixture.h"

namespace gradwarden::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(Cli, RunsOfEveryLengthAreListedAndShown) {
  std::string text;
  EXPECT_EQ(command("runs", &text), 0);
  EXPECT_THAT(text, HasSubstr("no runs yet"));
  for (const std::uint64_t steps : {0, 1, 20, 20000})
    send_quiet("run" + std::to_string(steps), "a1", steps);
  EXPECT_EQ(command("runs", &text), 0);
  EXPECT_EQ(lines_in(text), 5u) << text;
  EXPECT_EQ(command("show run0", &text), 0);
  EXPECT_THAT(text,
              AllOf(HasSubstr("no report yet"), HasSubstr("no step yet"), HasSubstr("no events")));
  for (const std::string run : {"run1", "run20", "run20000"}) {
    EXPECT_EQ(command("show --ascii " + run, &text), 0);
    EXPECT_THAT(
        text, AllOf(HasSubstr("grad norm, log axis"), HasSubstr("step 1"), HasSubstr("no events")));
  }
  EXPECT_EQ(command("runs --json", &text), 0);
  EXPECT_EQ(nlohmann::json::parse(text)["runs"].size(), 4u);
}

TEST_F(Cli, NoLineOfShowIsWiderThanTheTerminal) {
  send("demo", "a1", 300, [](v1::Report& report) {
    if (report.step() == 200) report.set_grad_norm(50);
    report.add_batch_ids("chunk-" + std::to_string(report.step()));
  });
  for (const int width : {40, 80, 200}) {
    std::string text;
    EXPECT_EQ(shell("COLUMNS=" + std::to_string(width) + " $G show demo --ascii", &text), 0);
    EXPECT_THAT(text, AllOf(HasSubstr("^ spike"), HasSubstr("grad_spike, step 200"),
                            HasSubstr("batches: chunk-200")));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(line.size(), static_cast<std::size_t>(width)) << line;
    }
  }
}

TEST_F(Cli, ARunWithoutLossAndWithNothingButNanIsShown) {
  send("nan", "a1", 30, [](v1::Report& report) {
    report.clear_loss();
    report.set_grad_norm(std::nan(""));
    report.set_nan_count(60180);
    report.set_decision(v1::DECISION_SKIP);
    report.set_reason(v1::REASON_NON_FINITE);
  });
  std::string text;
  EXPECT_EQ(command("show nan", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("none is finite"), HasSubstr("non_finite, steps 1-30"),
                          HasSubstr("60180 non-finite gradient elements")));
  EXPECT_EQ(command("show nan --json", &text), 0);
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["summary"]["grad_norm"], "NaN");
  EXPECT_FALSE(json["summary"].contains("loss"));
  EXPECT_EQ(json["events"].size(), 1u);
  EXPECT_EQ(command("export nan", &text), 0);
  EXPECT_THAT(text, HasSubstr("a1,1,1700000000000000001,,nan,"));
}

TEST_F(Cli, TheLatestAttemptIsDrawnAndOthersOnRequest) {
  send_quiet("demo", "first", 50);
  send_quiet("demo", "second", 20);
  std::string text;
  EXPECT_EQ(command("show demo --ascii", &text), 0);
  EXPECT_THAT(text, AllOf(HasSubstr("first "), HasSubstr("second "), HasSubstr("1 to 50"),
                          HasSubstr("step 1            20\n")));
  EXPECT_EQ(command("show demo --ascii --attempt first", &text), 0);
  EXPECT_THAT(text, HasSubstr(" 50\n"));
  EXPECT_EQ(command("export demo | wc -l", &text), 0);
  EXPECT_EQ(text, "71\n");
  EXPECT_EQ(command("export demo --attempt second --first-step 5 --last-step 8 | wc -l", &text), 0);
  EXPECT_EQ(text, "5\n");
}

TEST_F(Cli, ExportedNumbersAreTheSameThatWereSent) {
  send("exact", "a1", 200, [](v1::Report& report) {
    report.set_grad_norm(std::exp(static_cast<double>(report.step()) / 3) / 7);
    report.set_loss(1.0 / static_cast<double>(report.step()));
  });
  std::string text;
  ASSERT_EQ(command("export exact | tail -n +2 | cut -d, -f2,4,5", &text), 0);
  std::istringstream lines(text);
  std::uint64_t count = 0;
  for (std::string line; std::getline(lines, line);) {
    ++count;
    char* rest = nullptr;
    EXPECT_EQ(std::strtoull(line.c_str(), &rest, 10), count);
    EXPECT_EQ(std::strtod(rest + 1, &rest), 1.0 / static_cast<double>(count));
    EXPECT_EQ(std::strtod(rest + 1, &rest), std::exp(static_cast<double>(count) / 3) / 7);
  }
  EXPECT_EQ(count, 200u);
  ASSERT_EQ(command("export exact --json", &text), 0);
  std::istringstream json_lines(text);
  std::uint64_t step = 0;
  for (std::string line; std::getline(json_lines, line);) {
    ++step;
    EXPECT_EQ(nlohmann::json::parse(line)["loss"], 1.0 / static_cast<double>(step));
  }
  EXPECT_EQ(step, 200u);
}

TEST_F(Cli, AClosedPipeEndsAnExportWithoutAWord) {
  send_quiet("long", "a1", 20000);
  std::string text;
  shell("$G export long | head -n 2 | wc -l", &text);
  EXPECT_EQ(text, "2\n");
  // Also where the parent ignores the signal, as some do.
  shell("trap '' PIPE; $G export long | head -n 2 | wc -l; echo ${PIPESTATUS[0]}", &text);
  EXPECT_EQ(text, "2\n0\n");
}

TEST_F(Cli, OutputThatCannotBeWrittenIsAnError) {
  send_quiet("long", "a1", 2000);
  std::string text;
  EXPECT_EQ(command("export long > /dev/full", &text), 4);
  EXPECT_THAT(text, AllOf(StartsWith("gradwarden: standard output cannot be written"),
                          Not(HasSubstr("\n\n"))));
}

TEST_F(Cli, EachMistakeGetsOneLineAndItsExitCode) {
  send_quiet("demo", "a1", 5);
  const struct {
    std::string arguments;
    int code;
    std::string says;
  } cases[] = {
      {"show nobody", 1, "run \"nobody\" is unknown"},
      {"watch a/b", 2, "run: \"a/b\""},
      {"export nobody", 1, "run \"nobody\" is unknown"},
      {"show demo --attempt x", 1, "has no attempt \"x\""},
      {"export demo --attempt x", 1, "has no attempt \"x\""},
      {"show ./nofile", 1, "./nofile: No such file"},
      {"export /etc/passwd", 1, "not a gradwarden history file"},
      {"", 2, "which command?"},
      {"frobnicate", 2, "no command \"frobnicate\""},
      {"show", 2, "run is required"},
      {"show demo --height 2", 2, "--height: Value 2 not in range 3 to 100"},
      {"show demo --bogus", 2, "--bogus"},
      {"watch --count=-1", 2, "--count is \"-1\""},
      {"export demo --format xml", 2, "--format is \"xml\"; allowed: csv, jsonl"},
      {"export demo --first-step 9 --last-step 3", 2, "--first-step is 9"},
      {"replay ./nofile", 1, "./nofile: No such file"},
      {"replay /etc/passwd", 1, "no loss or grad norm found"},
      {"replay /etc", 1, "/etc: is a folder"},
      {"replay /etc/passwd --column depth=x", 2, "--column is \"depth=x\"; allowed: FIELD=NAME"},
      {"replay /etc/passwd --clip 0", 2, "--clip"},
      {"runs --daemon nowhere", 2, "is \"nowhere\"; allowed: host:port"},
      {"runs --daemon 127.0.0.1:1", 3, "no answer from 127.0.0.1:1 (Connection refused)"},
      {"--daemon 127.0.0.1:1 runs", 3, "no answer from 127.0.0.1:1"},
      {"watch --daemon 127.0.0.1:1", 3, "no answer from 127.0.0.1:1"},
      {"export demo --daemon 127.0.0.1:1", 3, "no answer from 127.0.0.1:1"},
  };
  for (const auto& one : cases) {
    std::string text;
    EXPECT_EQ(command(one.arguments, &text), one.code) << one.arguments << '\n' << text;
    EXPECT_THAT(text, AllOf(StartsWith("gradwarden: "), HasSubstr(one.says))) << one.arguments;
    EXPECT_EQ(lines_in(text), 1u) << one.arguments << '\n' << text;
  }
}

TEST_F(Cli, ReplayReadsALogWithoutADaemon) {
  const TemporaryFolder folder;
  const std::string path = folder.path() + "/replayed";
  std::string text;
  const std::string write =
      "awk 'BEGIN{print \"step,loss,grad_norm\"; for(i=0;i<300;i++) print i \",\" 3+i%5/100 "
      "\",\" (i==200?30:1)}' > " +
      path + ".csv; ";
  const std::string replay = "GRADWARDEN_DAEMON=127.0.0.1:1 $G replay " + path + ".csv ";
  EXPECT_EQ(
      shell(write + replay + "--json --html " + path + ".html; grep -q '</html>' " + path + ".html",
            &text),
      0);
  const nlohmann::json json = nlohmann::json::parse(text);
  ASSERT_EQ(json["events"].size(), 1u);
  EXPECT_EQ(json["events"][0]["peak_step"], 200);
  EXPECT_EQ(json["events"][0]["severity"], "warning");
}

TEST_F(Cli, TheDaemonIsTakenFromTheEnvironmentUnlessAFlagNamesOne) {
  std::string text;
  EXPECT_EQ(shell("GRADWARDEN_DAEMON=127.0.0.1:1 $G runs", &text), 3);
  EXPECT_EQ(
      shell("GRADWARDEN_DAEMON=127.0.0.1:1 $G runs --daemon " + daemon_->grpc_address(), &text), 0);
  EXPECT_EQ(shell("GRADWARDEN_DAEMON= $G runs --daemon " + daemon_->grpc_address(), &text), 0);
}

TEST_F(Cli, EveryCommandHasHelpWithExamplesAndExitCodes) {
  for (const std::string name : {"", "runs", "show", "watch", "export", "replay"}) {
    std::string text;
    EXPECT_EQ(command(name + " --help", &text), 0);
    EXPECT_THAT(text, AllOf(HasSubstr("Examples:\n  gradwarden"), HasSubstr("Exit codes: 0 done"),
                            HasSubstr("70 internal error")));
  }
}

}  // namespace
}  // namespace gradwarden::testing
