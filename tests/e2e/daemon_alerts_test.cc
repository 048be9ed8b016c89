// Alerts of a real daemon, taken by a real Alertmanager. Skipped, and said, where there is none:
// deploy/fetch_alertmanager.sh makes one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {
namespace {

using Json = nlohmann::json;

std::string program(const std::string& name) {
  const char* set = std::getenv("GRADWARDEN_ALERTMANAGER");
  const std::string folder = set != nullptr ? set : GRADWARDEN_TEST_ALERTMANAGER;
  return std::filesystem::path(folder + "/" + name).lexically_normal();
}

// A port that nobody else is given while this lives, for an Alertmanager, which cannot choose one
// itself and whose daemon may be told of it before it starts. As it is bound with SO_REUSEADDR and
// not listened at, connecting to it is refused, and a program that sets SO_REUSEADDR may listen.
class ReservedPort {
 public:
  ReservedPort() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int yes = 1;
    ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(socket_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    number_ = ntohs(address.sin_port);
  }
  ~ReservedPort() { ::close(socket_); }
  ReservedPort(const ReservedPort&) = delete;
  ReservedPort& operator=(const ReservedPort&) = delete;

  int number() const { return number_; }

 private:
  const int socket_;
  int number_ = 0;
};

template <typename Condition>
bool wait_for(Condition condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (std::chrono::steady_clock::now() < deadline) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return false;
}

class Alertmanager {
 public:
  ~Alertmanager() { stop(); }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_.number()); }
  bool start() {
    const std::string config = folder_.path() + "/alertmanager.yml";
    std::ofstream(config) << "route: {receiver: none}\nreceivers: [{name: none}]\n";
    pid_ = fork();
    if (pid_ == 0) {
      const std::string log = folder_.path() + "/log";
      if (std::freopen(log.c_str(), "a", stderr) == nullptr) _exit(126);
      const std::string command =
          "exec " + program("prometheus-alertmanager") + " --config.file=" + config +
          " --storage.path=" + folder_.path() +
          " --web.listen-address=127.0.0.1:" + std::to_string(port_.number()) +
          " --cluster.listen-address=";
      // Debian's build reads a template under /usr/share, also if it was only unpacked: it gets a
      // view of its own in which that is there.
      const std::string share = program("../share");
      const std::string view =
          "mount -t overlay overlay -o lowerdir=" + share + ":/usr/share /usr/share && " + command;
      if (std::filesystem::exists("/usr/share/prometheus/alertmanager/default.tmpl")) {
        execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      } else {
        execlp("unshare", "unshare", "-rm", "sh", "-c", view.c_str(), nullptr);
      }
      _exit(127);
    }
    return wait_for([&] { return http_request(port_.number(), "/-/ready").status == 200; });
  }
  void stop() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  // What `amtool alert query` lists.
  Json alerts() const {
    std::string output;
    const int code = run_program(
        {program("amtool"), "alert", "query", "--alertmanager.url=" + url(), "-o", "json"},
        &output);
    return code == 0 ? Json::parse(output, nullptr, false) : Json();
  }

 private:
  const TemporaryFolder folder_;
  const ReservedPort port_;
  pid_t pid_ = -1;
};

class DaemonAlerts : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(program("prometheus-alertmanager"))) {
      GTEST_SKIP() << "no Alertmanager; deploy/fetch_alertmanager.sh makes one";
    }
  }
  void start_daemon() {
    clients_.clear();
    daemon_.reset();
    daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{
        .data_dir = folder_.path(),
        .config = "alerts:\n  interval_seconds: 1\n  link: \"http://board/{run}\"\n  sinks:\n"
                  "    - type: alertmanager\n      url: \"" +
                  alertmanager_.url() + "\"\n"});
  }
  // Steps 1 to `steps` with a spike at `spike`, without a goodbye.
  void send(const std::string& run, std::uint64_t first, std::uint64_t last, std::uint64_t spike) {
    std::unique_ptr<IngestClient>& client = clients_[run];
    if (client == nullptr) {
      client = std::make_unique<IngestClient>(daemon_->grpc_address());
      ASSERT_TRUE(client->send(make_hello(run, "a1")));
      v1::IngestResponse welcome;
      ASSERT_TRUE(client->receive(&welcome));
    }
    v1::ReportBatch batch = make_batch(first, last);
    for (v1::Report& report : *batch.mutable_reports()) {
      if (report.step() != spike) continue;
      report.set_grad_norm(50);
      report.add_batch_ids("b7");
    }
    ASSERT_TRUE(client->send(batch));
    ASSERT_TRUE(client->receive_until(last));
  }

  const TemporaryFolder folder_;
  Alertmanager alertmanager_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::map<std::string, std::unique_ptr<IngestClient>> clients_;
};

TEST_F(DaemonAlerts, AnAlertAppearsOnceInAlertmanagerAndResolves) {
  ASSERT_TRUE(alertmanager_.start());
  start_daemon();
  send("run", 1, 210, 205);
  ASSERT_TRUE(wait_for([&] { return alertmanager_.alerts().size() == 1; }));
  const Json alert = alertmanager_.alerts()[0];
  EXPECT_EQ(alert["labels"]["run"], "run");
  EXPECT_EQ(alert["labels"]["kind"], "grad_spike");
  EXPECT_EQ(alert["annotations"]["step"], "205");
  EXPECT_EQ(alert["annotations"]["attempt"], "a1");
  EXPECT_EQ(alert["annotations"]["link"], "http://board/run");
  EXPECT_FALSE(alert["annotations"]["cause"].get<std::string>().empty());
  send("run", 211, 240, 0);  // quiet again
  EXPECT_TRUE(wait_for([&] { return alertmanager_.alerts().empty(); }));
}

TEST_F(DaemonAlerts, WhatAnAlertmanagerThatWasAwayMissedIsToldOnceAlsoByADaemonThatWasKilled) {
  start_daemon();
  send("run", 1, 210, 205);
  send("other", 1, 210, 205);
  daemon_->kill();
  start_daemon();
  ASSERT_TRUE(alertmanager_.start());
  ASSERT_TRUE(wait_for([&] { return alertmanager_.alerts().size() == 2; }));
  daemon_->kill();
  start_daemon();
  send("third", 1, 210, 205);
  ASSERT_TRUE(wait_for([&] { return alertmanager_.alerts().size() == 3; }));
}

TEST_F(DaemonAlerts, ASilencedRunIsNotSentAndItsEventsAreFoundAllTheSame) {
  ASSERT_TRUE(alertmanager_.start());
  start_daemon();
  const std::vector<std::string> command = {GRADWARDEN_TEST_COMMAND, "silence"};
  const auto silence = [&](std::vector<std::string> arguments, std::string* output) {
    std::vector<std::string> all = command;
    all.insert(all.end(), arguments.begin(), arguments.end());
    all.insert(all.end(), {"--daemon", daemon_->grpc_address()});
    return run_program(all, output);
  };
  std::string output;
  ASSERT_EQ(silence({"quiet*", "--rule", "grad_spike", "--for", "1h"}, &output), 0) << output;
  ASSERT_EQ(silence({"--list"}, &output), 0);
  EXPECT_THAT(output, ::testing::HasSubstr("1  quiet*  grad_spike"));
  send("quiet-run", 1, 210, 205);
  send("loud-run", 1, 210, 205);
  ASSERT_TRUE(wait_for([&] { return alertmanager_.alerts().size() == 1; }));
  EXPECT_EQ(alertmanager_.alerts()[0]["labels"]["run"], "loud-run");
  EXPECT_EQ(silence({"--remove", "1"}, &output), 0);
  EXPECT_TRUE(wait_for([&] { return alertmanager_.alerts().size() == 2; }));
  EXPECT_EQ(silence({"--remove", "1"}, &output), 1);
  EXPECT_EQ(silence({"x", "--for", "soon"}, &output), 2);
}

}  // namespace
}  // namespace gradwarden::testing
