// The `gradwarden` command beside a real gradwardend, for tests. Used by one thread; the command
// may run in others.
#ifndef GRADWARDEN_TESTS_E2E_CLI_FIXTURE_H_
#define GRADWARDEN_TESTS_E2E_CLI_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {

inline std::size_t lines_in(const std::string& text) {
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

class Cli : public ::testing::Test {
 protected:
  // Through a shell, with the daemon's address in the environment; standard error comes too.
  int shell(const std::string& arguments, std::string* output) const {
    return run_program({"/bin/bash", "-c", "G=" GRADWARDEN_TEST_COMMAND "; " + arguments}, output);
  }
  int command(const std::string& arguments, std::string* output) const {
    return shell("$G " + arguments, output);
  }

  void SetUp() override {
    daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{.data_dir = folder_.path()});
    setenv("GRADWARDEN_DAEMON", daemon_->grpc_address().c_str(), 1);
    unsetenv("COLUMNS");
  }
  void TearDown() override { unsetenv("GRADWARDEN_DAEMON"); }

  // Sends what `change` makes of quiet steps 1 to `steps` as one attempt, and waits until all is
  // stored.
  template <typename Change>
  void send(const std::string& run, const std::string& attempt, std::uint64_t steps,
            Change change) {
    IngestClient client(daemon_->grpc_address());
    ASSERT_TRUE(client.send(make_hello(run, attempt)));
    v1::IngestResponse welcome;
    ASSERT_TRUE(client.receive(&welcome));
    for (std::uint64_t first = 1; first <= steps; first += 512) {
      const std::uint64_t last = std::min(steps, first + 511);
      v1::ReportBatch batch = make_batch(first, last);
      for (v1::Report& report : *batch.mutable_reports()) change(report);
      ASSERT_TRUE(client.send(batch));
      ASSERT_TRUE(client.receive_until(last));
    }
    ASSERT_TRUE(client.rejected.empty()) << client.rejected[0].message();
    ASSERT_TRUE(client.send_goodbye(steps));
    ASSERT_TRUE(client.receive_goodbye());
    ASSERT_TRUE(client.finish().ok());
  }
  void send_quiet(const std::string& run, const std::string& attempt, std::uint64_t steps) {
    send(run, attempt, steps, [](v1::Report&) {});
  }

  const TemporaryFolder folder_;
  std::unique_ptr<DaemonProcess> daemon_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_CLI_FIXTURE_H_
