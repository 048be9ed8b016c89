// follow, compare, skiplist and rewind against a real daemon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/e2e/cli_fixture.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

class Aftermath : public Cli {
 protected:
  Json json_of(const std::string& arguments, int code = 0) {
    std::string output;
    EXPECT_EQ(command(arguments + " --json 2>/dev/null", &output), code) << output;
    return Json::parse(output, nullptr, false);
  }
  // True once the run has so many reports.
  bool wait_for_reports(const std::string& run, std::uint64_t count) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (std::chrono::steady_clock::now() < deadline) {
      const Json runs = json_of("runs");
      for (const Json& one : runs["runs"]) {
        if (one["run"] == run && one["reports"] == count) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    return false;
  }
  void append(const std::string& path, int first, int last, double loss = 3) {
    std::ofstream file(path, std::ios::app);
    for (int i = first; i <= last; ++i) {
      file << "iter " << i << ": loss " << loss << ", time 9ms\n";
    }
  }
  void start(const std::string& arguments) {
    follower_ = fork();
    ASSERT_GE(follower_, 0);
    if (follower_ == 0) {
      execl("/bin/bash", "bash", "-c",
            ("exec " GRADWARDEN_TEST_COMMAND " " + arguments + " 2>/dev/null").c_str(), nullptr);
      _exit(127);
    }
  }
  int stop() {
    kill(follower_, SIGTERM);
    int status = 0;
    waitpid(follower_, &status, 0);
    follower_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void TearDown() override {
    if (follower_ > 0) {
      kill(follower_, SIGKILL);
      waitpid(follower_, nullptr, 0);
    }
    Cli::TearDown();
  }

  pid_t follower_ = -1;
};

TEST_F(Aftermath, FollowStreamsAGrowingLogThroughRotationTruncationAndARestartOfTheTrainer) {
  const std::string log = folder_.path() + "/train.log";
  append(log, 0, 99);
  start("follow " + log + " --run followed");
  ASSERT_TRUE(wait_for_reports("followed", 100));
  append(log, 100, 149);
  ASSERT_TRUE(wait_for_reports("followed", 150));
  std::filesystem::rename(log, log + ".1");  // rotated: the steps go on in a new file
  append(log, 150, 169);
  ASSERT_TRUE(wait_for_reports("followed", 170));
  std::filesystem::resize_file(log, 0);  // cut, and the trainer begins again from step 120
  append(log, 120, 139);
  ASSERT_TRUE(wait_for_reports("followed", 190));
  EXPECT_EQ(stop(), 0);
  const Json run = json_of("show followed");
  ASSERT_EQ(run["attempts"].size(), 2u);
  EXPECT_EQ(run["attempts"][0]["last_step"], 169);
  EXPECT_EQ(run["attempts"][1]["first_step"], 120);
  EXPECT_EQ(run["attempts"][1]["finished"], true);
}

TEST_F(Aftermath, FollowKeepsWhatADaemonThatIsAwayCannotTakeAndEndsWhenIdle) {
  const std::string log = folder_.path() + "/train.log";
  append(log, 0, 49);
  const int port = daemon_->grpc_port();
  daemon_->kill();
  // Idle since the follower's start, and until then the daemon must be back, on a slow machine too.
  start("follow " + log + " --run later --until-idle 20");
  daemon_.reset();
  daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{
      .data_dir = folder_.path(), .grpc_listen = "127.0.0.1:" + std::to_string(port)});
  EXPECT_TRUE(wait_for_reports("later", 50));
  int status = 0;
  waitpid(follower_, &status, 0);
  follower_ = -1;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

void spike_at(v1::Report& report, std::uint64_t step) {
  report.add_batch_ids(std::string("b").append(std::to_string(report.step())));
  if (report.step() % 100 == 0) report.add_checkpoint_steps(report.step());
  if (report.step() != step) return;
  report.set_loss(30);
  report.set_grad_norm(40);
}

TEST_F(Aftermath, ARunOfManyAttemptsWithManyGroupsIsShownWhole) {
  for (int attempt = 1; attempt <= 8; ++attempt) {
    IngestClient client(daemon_->grpc_address());
    v1::Hello hello = make_hello("large", std::string("a").append(std::to_string(attempt)));
    for (int group = 0; group < 4000; ++group) {
      hello.add_groups(std::string(180, 'g').append(std::to_string(group)));
    }
    ASSERT_TRUE(client.send(hello));
    v1::IngestResponse response;
    ASSERT_TRUE(client.receive(&response));
  }
  EXPECT_EQ(json_of("show large")["attempts"].size(), 8U);
}

TEST_F(Aftermath, RewindFindsTheCheckpointThoughManyFollowedTheIncident) {
  send("run", "a1", 1000, [](v1::Report& report) {
    spike_at(report, 350);
    if (report.step() % 10 == 0 && report.step() % 100 != 0) {
      report.add_checkpoint_steps(report.step());
    }
  });
  EXPECT_EQ(json_of("rewind run")["checkpoint_step"], 250);
}

TEST_F(Aftermath, SkiplistNamesTheBatchesAndRewindTheCheckpointSafelyBefore) {
  send("run", "a1", 450, [](v1::Report& report) { spike_at(report, 350); });
  std::string output;
  ASSERT_EQ(command("skiplist run", &output), 0);
  EXPECT_EQ(output, "b350\n");
  const Json list = json_of("skiplist run");
  EXPECT_EQ(list["batches"][0]["id"], "b350");
  EXPECT_EQ(list["batches"][0]["cause"], "data");
  const Json back = json_of("rewind run");
  EXPECT_EQ(back["checkpoint_step"], 200);
  EXPECT_EQ(back["incident_step"], 350);
  EXPECT_EQ(back["skip_batches"][0], "b350");
  ASSERT_EQ(command("rewind run", &output), 0);
  EXPECT_THAT(output, HasSubstr("go back to the checkpoint of step 200"));
  EXPECT_EQ(command("rewind nosuch", &output), 1);
}

TEST_F(Aftermath, ABatchThatSpikesAgainInTheNextAttemptIsDataAndCompareShowsBoth) {
  send("run", "a1", 400, [](v1::Report& report) { spike_at(report, 350); });
  send("run", "a2", 400, [](v1::Report& report) { spike_at(report, 350); });
  send("run", "a3", 400, [](v1::Report& report) {
    spike_at(report, 0);
    if (report.step() >= 200) report.set_loss(4);
  });
  const Json events = json_of("show run")["events"];
  double surest = 0;
  for (const Json& event : events) {
    if (event["attempt"] != "a2" || event["kind"] == "restart") continue;
    EXPECT_EQ(event["cause"], "data");
    surest = event["confidence"];
  }
  EXPECT_GT(surest, 0.8);
  const Json compared = json_of("compare run");
  EXPECT_EQ(compared["others"].size(), 2u);
  EXPECT_EQ(compared["others"][0]["parts_at"], nullptr);
  EXPECT_EQ(compared["others"][1]["parts_at"], 200);
  EXPECT_EQ(compared["batches"][0]["id"], "b350");
  EXPECT_EQ(compared["batches"][0]["spiked_in"].size(), 2u);
  EXPECT_EQ(compared["batches"][0]["not_in"][0], "run@a3");
}

TEST_F(Aftermath, ARunThatFallsSilentIsAnEventThatEndsWhenItReportsAgainOrBeginsAnew) {
  daemon_.reset();
  daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{
      .data_dir = folder_.path(), .config = "detect:\n  stall_seconds: 1\n"});
  setenv("GRADWARDEN_DAEMON", daemon_->grpc_address().c_str(), 1);
  const auto stall = [&](bool ended) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < deadline) {
      const Json shown = json_of("show silent");
      for (const Json& event : shown["events"]) {
        if (event["kind"] == "stalled_run" && event.contains("end_step") == ended) return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  };
  IngestClient client(daemon_->grpc_address());
  ASSERT_TRUE(client.send(make_hello("silent", "a1")));
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.receive(&welcome));
  ASSERT_TRUE(client.send(make_batch(1, 50)));
  ASSERT_TRUE(client.receive_until(50));
  EXPECT_TRUE(stall(false));
  ASSERT_TRUE(client.send(make_batch(51, 60)));
  ASSERT_TRUE(client.receive_until(60));
  EXPECT_TRUE(stall(true));
}

}  // namespace
}  // namespace gradwarden::testing
