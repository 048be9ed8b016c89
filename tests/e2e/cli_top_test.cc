// `gradwarden top` in a terminal of its own, against a real gradwardend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <string>

#include "tests/e2e/cli_fixture.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

// A pseudo-terminal of 30 lines of 120 characters in which `gradwarden top` runs. Used by one
// thread.
class Terminal {
 public:
  Terminal() {
    winsize size{30, 120, 0, 0};
    pid_ = forkpty(&terminal_, nullptr, nullptr, &size);
    if (pid_ == 0) {
      execl(GRADWARDEN_TEST_COMMAND, GRADWARDEN_TEST_COMMAND, "top", "--interval", "0.1", nullptr);
      _exit(127);
    }
  }
  ~Terminal() {
    if (pid_ > 0) {
      ::kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(terminal_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Whether this is on a screen that is drawn from now on.
  bool shows(const std::string& text) {
    output_.clear();
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (output_.find(text) == std::string::npos) {
      if (std::chrono::steady_clock::now() > deadline || !read_some()) return false;
    }
    return true;
  }

  void press(char key) const { EXPECT_EQ(write(terminal_, &key, 1), 1); }

  // What came until it ended; its exit code, or minus the signal that ended it.
  int wait_for_end(std::string* rest) {
    output_.clear();
    while (read_some()) {
    }
    *rest = output_;
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  bool read_some() {
    pollfd ready{terminal_, POLLIN, 0};
    if (poll(&ready, 1, 30'000) <= 0) return false;
    char text[4096];
    const ssize_t got = read(terminal_, text, sizeof text);  // fails once the other end is closed
    if (got > 0) output_.append(text, static_cast<std::size_t>(got));
    return got > 0;
  }

  int terminal_ = -1;
  pid_t pid_ = 0;
  std::string output_;
};

TEST_F(Cli, TopShowsRunsAndAnEventThatBeginsAndEndsUntilQIsPressed) {
  Terminal terminal;
  ASSERT_TRUE(terminal.shows("0 runs"));

  IngestClient client(daemon_->grpc_address());
  ASSERT_TRUE(client.send(make_hello("demo", "a1")));
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.receive(&welcome));
  v1::ReportBatch batch = make_batch(1, 200);
  batch.mutable_reports(199)->set_grad_norm(50);
  ASSERT_TRUE(client.send(batch));
  ASSERT_TRUE(client.receive_until(200));
  EXPECT_TRUE(terminal.shows("1 run, 1 open event"));
  EXPECT_TRUE(terminal.shows("demo  step 200  grad_spike  grad norm 50"));

  ASSERT_TRUE(client.send(make_batch(201, 300)));
  ASSERT_TRUE(client.receive_until(300));
  EXPECT_TRUE(terminal.shows("1 run, 0 open events"));
  EXPECT_TRUE(terminal.shows("demo  step 200  grad_spike  ended after 1 flagged step"));

  terminal.press('q');
  std::string rest;
  EXPECT_EQ(terminal.wait_for_end(&rest), 0);
  EXPECT_THAT(rest, HasSubstr("\x1b[?25h\x1b[?1049l")) << "the cursor and the screen come back";
}

TEST_F(Cli, TopKeepsWhatItShowedWhileTheDaemonIsAwayAndEndsOnCtrlC) {
  send_quiet("demo", "a1", 50);
  Terminal terminal;
  ASSERT_TRUE(terminal.shows("demo"));
  daemon_->kill();
  EXPECT_TRUE(terminal.shows("NO ANSWER"));
  EXPECT_TRUE(terminal.shows("demo"));
  terminal.press('\x03');
  std::string rest;
  EXPECT_EQ(terminal.wait_for_end(&rest), 0);
}

}  // namespace
}  // namespace gradwarden::testing
