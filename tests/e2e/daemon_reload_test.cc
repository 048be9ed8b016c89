// SIGHUP, retention and damaged histories at a real gradwardend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>

#include "tests/e2e/guarded_daemon.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

class Reload : public GuardedDaemon {
 protected:
  std::string config() const { return path("gradwardend.yaml"); }
  void configure(const std::string& text) const { replace_file(config(), text); }
  double metric(const std::string& name) const {
    return metric_value(http_request(daemon_->http_port(), "/metrics").body, name);
  }
  // Sends SIGHUP and waits until it was acted upon.
  void reload() const {
    const auto acted = [this] {
      return metric("gradwarden_reloads_total") + metric("gradwarden_reload_failures_total");
    };
    const double before = acted();
    ASSERT_EQ(::kill(daemon_->pid(), SIGHUP), 0);
    ASSERT_TRUE(soon([&] { return acted() > before; }));
  }
  // Whether a new stream is let in.
  bool greets(const std::string& run) const {
    IngestClient client(clear_channel());
    v1::IngestResponse welcome;
    return client.send(make_hello(run, "a1")) && client.receive(&welcome) && welcome.has_welcome();
  }
};

TEST_F(Reload, ChangesLimitsWithoutARestart) {
  configure("ingest: {max_runs: 1}\n");
  start({"--config", config()});
  EXPECT_TRUE(greets("first"));
  EXPECT_FALSE(greets("second"));
  configure("ingest: {max_runs: 2}\n");
  reload();
  EXPECT_TRUE(greets("second"));
  EXPECT_FALSE(greets("third"));
}

TEST_F(Reload, ABadConfigurationLeavesTheOldOneInForceAndSaysWhy) {
  configure("ingest: {max_runs: 1}\n");
  start({"--config", config()});
  configure("ingest: {max_runs: many}\n");
  reload();
  EXPECT_EQ(metric("gradwarden_reload_failures_total"), 1);
  EXPECT_THAT(daemon_->log(), HasSubstr("ingest.max_runs: \"many\""));
  EXPECT_TRUE(greets("first"));
  EXPECT_FALSE(greets("second"));
  std::filesystem::remove(config());
  reload();
  EXPECT_EQ(metric("gradwarden_reload_failures_total"), 2);
}

TEST_F(Reload, AThousandSignalsDuringIngestLoseNothing) {
  configure("log: {level: error}\n");
  start({"--config", config()});
  IngestClient client(clear_channel());
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&welcome));
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(::kill(daemon_->pid(), SIGHUP), 0);
    ASSERT_TRUE(client.send(make_batch(10 * i + 1, 10 * i + 10)));
  }
  ASSERT_TRUE(client.receive_until(10'000));
  EXPECT_TRUE(client.rejected.empty());
  EXPECT_EQ(metric("gradwarden_reports_stored_total"), 10'000);
  EXPECT_EQ(metric("gradwarden_reload_failures_total"), 0);
  EXPECT_GE(metric("gradwarden_reloads_total"), 1);
}

class DamagedHistory : public GuardedDaemon {
 protected:
  void store_reports(std::uint64_t last) {
    IngestClient client(clear_channel());
    v1::IngestResponse welcome;
    ASSERT_TRUE(client.send(make_hello("run", "a1")));
    ASSERT_TRUE(client.receive(&welcome));
    for (std::uint64_t first = 1; first <= last; first += 64) {
      ASSERT_TRUE(client.send(make_batch(first, first + 63)));
    }
    ASSERT_TRUE(client.receive_until(last));
  }
};

TEST_F(DamagedHistory, ADaemonStartsOnATruncatedFileWithWhatIsReadableAndCountsIt) {
  start({});
  store_reports(64 * 400);
  daemon_->terminate();
  ASSERT_EQ(daemon_->wait(), 0);
  const std::string history = path("data") + "/history.sqlite";
  const auto size = std::filesystem::file_size(history);
  std::filesystem::remove(history + "-wal");
  std::filesystem::resize_file(history, size * 3 / 4);
  start({});
  const std::string page = http_request(daemon_->http_port(), "/metrics").body;
  EXPECT_EQ(metric_value(page, "gradwarden_store_damaged_files_total"), 1);
  const double recovered = metric_value(page, "gradwarden_store_recovered_reports_total");
  EXPECT_GT(recovered, 0);
  EXPECT_LT(recovered, 64 * 400);
  EXPECT_THAT(daemon_->log(), HasSubstr("the history was damaged"));
  // What is lost is asked for again, what was recovered is not counted twice.
  store_reports(64 * 400);
  const std::string after = http_request(daemon_->http_port(), "/metrics").body;
  EXPECT_EQ(metric_value(after, "gradwarden_reports_duplicate_total"), recovered);
  EXPECT_EQ(metric_value(after, "gradwarden_reports_stored_total"), 64 * 400 - recovered);
}

TEST_F(DamagedHistory, AFileThatIsNoDatabaseIsSetAside) {
  std::filesystem::create_directory(path("data"));
  std::ofstream(path("data") + "/history.sqlite") << std::string(10'000, 'x');
  start({});
  store_reports(64);
  int aside = 0;
  for (const auto& file : std::filesystem::directory_iterator(path("data"))) {
    aside += file.path().filename().string().rfind("history.damaged-", 0) == 0 ? 1 : 0;
  }
  EXPECT_EQ(aside, 1);
}

}  // namespace
}  // namespace gradwarden::testing
