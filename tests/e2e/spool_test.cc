// Trainers that are killed with reports on disk, and the attempt after them, at a real gradwardend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>

#include "gradwarden/reporter.h"
#include "tests/e2e/guarded_daemon.h"
#include "tests/e2e/metrics_page.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden::testing {
namespace {

class KilledTrainer : public GuardedDaemon {
 protected:
  // A trainer that submits so many steps to `daemon` and is killed.
  void train_and_die(const std::string& daemon, int steps) const {
    std::string output;
    ASSERT_EQ(run_program({GRADWARDEN_TEST_KILLED_TRAINER, daemon, "run", path("spool"),
                           std::to_string(steps)},
                          &output),
              128 + SIGKILL)
        << output;
  }
  std::size_t spool_files() const {
    return static_cast<std::size_t>(std::distance(
        std::filesystem::directory_iterator(path("spool")), std::filesystem::directory_iterator()));
  }
  // The next attempt, until it has brought over so much.
  void next_attempt(std::uint64_t recovered) const {
    test::on_ranks(1, [&](Collective& ranks) {
      ReporterOptions options = test::options_for(daemon_->grpc_address());
      options.run = "run";
      options.spool_directory = path("spool");
      Reporter reporter(options, ranks);
      reporter.begin(test::shape_of());
      reporter.submit(test::record_of(1));
      EXPECT_TRUE(soon([&] { return reporter.statistics().recovered == recovered; }))
          << reporter.statistics().recovered << " " << reporter.statistics().last_error;
      EXPECT_TRUE(reporter.close());
    });
  }
  double metric(const std::string& name) const {
    return metric_value(http_request(daemon_->http_port(), "/metrics").body, name);
  }
};

TEST_F(KilledTrainer, ItsReportsAreDeliveredByTheNextAttemptUnderTheirOwn) {
  train_and_die("127.0.0.1:1", 3000);
  ASSERT_GT(spool_files(), 1U);
  start({});
  next_attempt(3000);
  EXPECT_EQ(spool_files(), 0U);
  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(daemon_->grpc_address()).get_run("run", &run).ok());
  ASSERT_EQ(run.attempts_size(), 2);
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 3001);
  EXPECT_EQ(metric("gradwarden_reports_duplicate_total"), 0);
}

TEST_F(KilledTrainer, ReportsThatWereAcknowledgedAlreadyAreNotCountedTwice) {
  start({});
  // With the daemon there, some of the last are acknowledged before the kill and still on disk.
  train_and_die(daemon_->grpc_address(), 500);
  std::filesystem::create_directories(path("spool"));
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions options = test::options_for(daemon_->grpc_address());
    options.run = "run";
    options.spool_directory = path("spool");
    Reporter reporter(options, ranks);
    reporter.begin(test::shape_of());
    EXPECT_TRUE(soon([&] { return spool_files() <= 1; }));
    EXPECT_TRUE(reporter.close());
  });
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 500);
}

TEST_F(KilledTrainer, ADaemonThatIsKilledWhileItTakesASpoolGetsAllOfItOnce) {
  train_and_die("127.0.0.1:1", 20'000);
  start({});
  const std::string address = daemon_->grpc_address();
  const std::string http = "127.0.0.1:" + std::to_string(daemon_->http_port());
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions options = test::options_for(address);
    options.run = "run";
    options.spool_directory = path("spool");
    options.close_timeout = std::chrono::seconds(60);
    Reporter reporter(options, ranks);
    reporter.begin(test::shape_of());
    ASSERT_TRUE(soon([&] { return metric("gradwarden_reports_stored_total") > 100; }));
    daemon_->kill();
    DaemonProcess::Options again;
    again.data_dir = path("data");
    again.grpc_listen = address;
    again.http_listen = http;
    daemon_ = std::make_unique<DaemonProcess>(again);
    EXPECT_TRUE(soon([&] { return spool_files() <= 1; }, std::chrono::seconds(60)));
    EXPECT_TRUE(reporter.close());
  });
  v1::ListRunsResponse runs;
  ASSERT_TRUE(QueryClient(daemon_->grpc_address()).list_runs(&runs).ok());
  ASSERT_EQ(runs.runs_size(), 1);
  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(daemon_->grpc_address()).get_run("run", &run).ok());
  std::uint64_t reports = 0;
  for (const auto& attempt : run.attempts()) reports += attempt.reports();
  EXPECT_EQ(reports, 20'000U);
}

}  // namespace
}  // namespace gradwarden::testing
