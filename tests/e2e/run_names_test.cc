// Many runs with names of their own, one after another: what they leave behind in memory and on
// the metrics page is bounded.
#include <gtest/gtest.h>

#include <iostream>
#include <sstream>

#include "tests/bench/load/process_figures.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"
#include "tests/full_length.h"

namespace gradwarden::testing {
namespace {

constexpr std::size_t kMega = 1 << 20;
constexpr int kShown = 50;
constexpr std::size_t kGrowth = 64 * kMega;

int names() { return full_or(100'000, 3000); }

void report_once(const std::shared_ptr<grpc::Channel>& channel, const std::string& run) {
  IngestClient client(channel);
  ASSERT_TRUE(client.send(make_hello(run, "a1")));
  ASSERT_TRUE(client.send(make_batch(1, 3)));
  ASSERT_TRUE(client.receive_until(3));
  ASSERT_TRUE(client.finish().ok());
}

std::size_t series_of_runs(const std::string& page) {
  std::istringstream lines(page);
  std::string line;
  std::size_t count = 0;
  while (std::getline(lines, line)) {
    if (line.find("run=\"") != std::string::npos) ++count;
  }
  return count;
}

TEST(RunNames, ThousandsLeaveMemoryAndSeriesBoundedAndAreAllStoredAndCounted) {
  const int count = names();
  const TemporaryFolder folder;
  DaemonProcess daemon({.data_dir = folder.path(),
                        .config = "log: {level: warn}\ningest: {max_runs: 1000000}\nmetrics: "
                                  "{max_runs: 50}\n"});
  const auto channel =
      grpc::CreateChannel(daemon.grpc_address(), grpc::InsecureChannelCredentials());
  const auto page = [&] { return http_request(daemon.http_port(), "/metrics").body; };
  // What a daemon with as many runs as are shown has anyway.
  for (int i = 0; i < kShown; ++i) {
    ASSERT_NO_FATAL_FAILURE(report_once(channel, "run-" + std::to_string(i)));
  }
  const std::size_t series = series_of_runs(page());
  const std::size_t before = load::memory_of(daemon.pid(), "VmRSS");
  for (int i = kShown; i < count; ++i) {
    ASSERT_NO_FATAL_FAILURE(report_once(channel, "run-" + std::to_string(i)));
  }
  const std::string last = page();
  const std::size_t after = load::memory_of(daemon.pid(), "VmRSS");
  std::cout << count << " runs: memory from " << before / kMega << " to " << after / kMega
            << " MiB, series of runs from " << series << " to " << series_of_runs(last) << "\n";
  EXPECT_LE(after, before + kGrowth);
  EXPECT_EQ(metric_value(last, "gradwarden_runs"), kShown);
  // Those of the runs that are shown, and a few of the others together.
  EXPECT_LE(series_of_runs(last), series + series / kShown + 1);
  EXPECT_EQ(metric_value(last, "gradwarden_steps_total{run=\"other\"}"), 3.0 * (count - kShown));
  EXPECT_EQ(metric_value(last, "gradwarden_reports_stored_total"), 3.0 * count);
  EXPECT_EQ(metric_value(last, "gradwarden_limited_total{limit=\"metrics.max_runs\"}"),
            count - kShown);

  // A run that left memory is known all the same.
  IngestClient again(channel);
  v1::IngestResponse response;
  ASSERT_TRUE(again.send(make_hello("run-0", "a1")));
  ASSERT_TRUE(again.receive(&response));
  ASSERT_EQ(response.welcome().stored_size(), 1);
  EXPECT_EQ(response.welcome().stored(0).last(), 3u);
}

}  // namespace
}  // namespace gradwarden::testing
