// Streams that break, batches that come twice and out of order: the sent set is the stored set.
#include "tests/e2e/faulty_proxy.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "gradwarden/reporter.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"
#include "tests/full_length.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden::testing {
namespace {

// How often each sequence of the run is stored, and with which step.
std::map<std::uint64_t, std::vector<std::uint64_t>> stored(const DaemonProcess& daemon) {
  v1::StreamHistoryRequest request;
  request.set_run("test");
  std::vector<v1::HistoryChunk> chunks;
  EXPECT_TRUE(QueryClient(daemon.grpc_address()).history(request, &chunks).ok());
  std::map<std::uint64_t, std::vector<std::uint64_t>> found;
  for (const v1::HistoryChunk& chunk : chunks) {
    for (const v1::Report& report : chunk.reports()) {
      found[report.sequence()].push_back(report.step());
    }
  }
  return found;
}

// Goal 8.
TEST(FaultyProxy, TheSentSetIsTheStoredSetThroughSeventyPercentOfFaults) {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  const std::uint64_t least = full_or(50'000, 2'500);
  const TemporaryFolder folder;
  const DaemonProcess daemon({folder.path()});
  FaultyProxy proxy(daemon.grpc_address(), seed);
  proxy.unavailable = 70;
  proxy.duplicate = 30;
  proxy.reorder = 30;
  SingleRank ranks;
  ReporterOptions options = test::options_for(proxy.address());
  options.heartbeat_interval = std::chrono::milliseconds(100);  // which ends what the proxy holds
  options.close_timeout = std::chrono::seconds(30);
  Reporter reporter(options, ranks);
  reporter.begin(test::shape_of());
  // Until all kinds of faults happened while there was something to send.
  const auto enough = [&] {
    return proxy.ended >= 20 && proxy.doubled >= 3 && proxy.reordered >= 3;
  };
  std::uint64_t steps = 0;
  while (steps < least || (!enough() && steps < 100 * least)) {
    if (reporter.statistics().pending < 500) {
      for (int i = 0; i < 100; ++i) reporter.submit(test::record_of(++steps));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(enough()) << proxy.ended << " " << proxy.doubled << " " << proxy.reordered;
  proxy.unavailable = 0;
  proxy.duplicate = 0;
  proxy.reorder = 0;
  EXPECT_TRUE(reporter.close()) << "within 30 s after the faults stopped";

  const ReporterStatistics statistics = reporter.statistics();
  EXPECT_EQ(statistics.acknowledged, steps);
  EXPECT_EQ(statistics.dropped, 0U);
  const auto found = stored(daemon);
  ASSERT_EQ(found.size(), steps);
  for (const auto& [sequence, copies] : found) {
    ASSERT_EQ(copies.size(), 1U) << sequence;
    EXPECT_EQ(copies[0], sequence);
  }
  const std::string page = http_request(daemon.http_port(), "/metrics").body;
  EXPECT_EQ(metric_value(page, "gradwarden_reports_stored_total"), static_cast<double>(steps));
  EXPECT_EQ(metric_value(page, "gradwarden_reports_received_total"),
            static_cast<double>(steps) + metric_value(page, "gradwarden_reports_duplicate_total"));
  std::cout << proxy.ended << " streams broken, " << proxy.doubled << " batches sent twice, "
            << proxy.reordered << " out of order, " << proxy.forwarded() << " reports sent for "
            << steps << "\n";
}

}  // namespace
}  // namespace gradwarden::testing
