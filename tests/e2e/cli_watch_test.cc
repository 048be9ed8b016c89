// `gradwarden watch` against a real gradwardend: what it waits for, and what ends it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "tests/e2e/cli_fixture.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Waits until somebody watches.
void wait_for_watcher(const DaemonProcess& daemon) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (metric_value(http_request(daemon.http_port(), "/metrics").body,
                      "gradwarden_event_watchers") < 1) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

TEST_F(Cli, WatchPrintsEachEventWhenItBeginsAndWhenItEnds) {
  std::string text;
  auto watching = std::async(std::launch::async, [&] { return command("watch --count 2", &text); });
  wait_for_watcher(*daemon_);
  send("demo", "a1", 300, [](v1::Report& report) {
    if (report.step() == 200) report.set_grad_norm(50);
  });
  EXPECT_EQ(watching.get(), 0);
  EXPECT_EQ(lines_in(text), 2u) << text;
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("demo  step 200  grad_spike  grad norm 50"), HasSubstr("to do: "),
            HasSubstr(
                "demo  step 200  grad_spike  ended after 1 flagged step, peak 50 at step 200")));
}

TEST_F(Cli, WatchWaitsForARunThatDoesNotExistYetAndSaysSo) {
  std::string text;
  auto watching = std::async(std::launch::async,
                             [&] { return command("watch later --json --count 1", &text); });
  wait_for_watcher(*daemon_);
  const auto spike = [](v1::Report& report) {
    if (report.step() == 200) report.set_grad_norm(50);
  };
  send("other", "a1", 300, spike);
  send("later", "a1", 300, spike);
  EXPECT_EQ(watching.get(), 0);
  EXPECT_EQ(lines_in(text), 2u) << text;
  EXPECT_THAT(text, StartsWith("gradwarden: run \"later\" is not known yet, waiting for it"));
  EXPECT_EQ(nlohmann::json::parse(text.substr(text.find('\n')))["run"], "later");
}

TEST_F(Cli, WatchEndsWhenNobodyReadsItAnyMoreThoughNoEventComes) {
  const std::string gone = folder_.path() + "/reader_goes";
  for (const std::string ignored : {"", "trap '' PIPE; "}) {
    std::string text;
    auto watching = std::async(std::launch::async, [&] {
      return shell(ignored + "timeout 60 $G watch | until [[ -e " + gone +
                       " ]]; do sleep 0.02; done; echo ${PIPESTATUS[0]}",
                   &text);
    });
    wait_for_watcher(*daemon_);
    std::ofstream(gone) << "now";
    watching.get();
    EXPECT_EQ(text, "0\n");
    std::filesystem::remove(gone);
  }
  // Also where the reader was gone before.
  std::string text;
  shell("timeout 60 $G watch | true; echo ${PIPESTATUS[0]}", &text);
  EXPECT_EQ(text, "0\n");
}

TEST_F(Cli, WatchSaysThatTheDaemonWentAwayWhetherKilledOrStopped) {
  for (const bool kill : {true, false}) {
    std::string text;
    auto watching = std::async(std::launch::async, [&] { return command("watch", &text); });
    wait_for_watcher(*daemon_);
    if (kill) {
      daemon_->kill();
    } else {
      daemon_->terminate();
      EXPECT_EQ(daemon_->wait(), 0);
    }
    EXPECT_EQ(watching.get(), 3);
    EXPECT_THAT(text, AllOf(StartsWith("gradwarden: the daemon at "), HasSubstr("went away")));
    EXPECT_EQ(lines_in(text), 1u) << text;
    SetUp();
  }
}

}  // namespace
}  // namespace gradwarden::testing
