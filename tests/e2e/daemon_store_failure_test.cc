// A store that cannot grow: a limit on the size of the daemon's files stands for a full disk, and
// is lifted later.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <functional>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/metrics_page.h"
#include "tests/e2e/webhook_sink.h"

namespace gradwarden::testing {
namespace {

using ::testing::HasSubstr;

void limit_file_size(pid_t pid, rlim_t bytes) {
  rlimit limit{};
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, nullptr, &limit), 0);
  limit.rlim_cur = bytes;
  ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &limit, nullptr), 0);
}

bool wait_until(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

TEST(DaemonStoreFailure, AcknowledgesNothingWhileTheStoreIsFullAndGoesOnWhenThereIsSpace) {
  const TemporaryFolder folder;
  const DaemonProcess daemon({folder.path()});
  IngestClient client(daemon.grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&response));
  ASSERT_TRUE(client.send(make_batch(1, 64)));
  ASSERT_TRUE(client.receive_until(64));

  constexpr rlim_t kFull = 64 << 10;
  limit_file_size(daemon.pid(), kFull);
  for (std::uint64_t first = 65; first <= 640; first += 64) {
    ASSERT_TRUE(client.send(make_batch(first, first + 63)));
  }
  EXPECT_TRUE(
      wait_until([&] { return http_request(daemon.http_port(), "/-/ready").status == 503; }));
  EXPECT_THAT(http_request(daemon.http_port(), "/-/ready").body, HasSubstr("cannot commit"));
  EXPECT_EQ(http_request(daemon.http_port(), "/-/healthy").status, 200);
  // The client is asked to hold back, and a new one is sent away for now.
  do {
    ASSERT_TRUE(client.receive(&response));
    client.note(response);
  } while (!response.has_retry_delay());
  EXPECT_LT(client.acknowledged.size(), 640u);
  IngestClient other(daemon.grpc_address());
  other.send(make_hello("other", "a1"));
  EXPECT_EQ(other.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  const std::string page = http_request(daemon.http_port(), "/metrics").body;
  EXPECT_GT(metric_value(page, "gradwarden_store_errors_total"), 0);
  EXPECT_EQ(metric_value(page, "gradwarden_store_failing"), 1);
  EXPECT_EQ(metric_value(page, "gradwarden_reports_stored_total"),
            static_cast<double>(client.acknowledged.size()));
  EXPECT_THAT(daemon.log(), HasSubstr("free disk space"));

  limit_file_size(daemon.pid(), RLIM_INFINITY);
  ASSERT_TRUE(client.receive_until(640));
  EXPECT_TRUE(
      wait_until([&] { return http_request(daemon.http_port(), "/-/ready").status == 200; }));
  EXPECT_TRUE(client.finish().ok());
  v1::GetRunResponse run;
  ASSERT_TRUE(QueryClient(daemon.grpc_address()).get_run("run", &run).ok());
  EXPECT_EQ(run.summary().reports(), 640u);
}

TEST(DaemonStoreFailure, IsNotReadyWhileItDrainsAndStillAnswersWhatItCanStoreInTime) {
  const TemporaryFolder folder;
  DaemonProcess daemon({.data_dir = folder.path(), .config = "drain_seconds: 60\n"});
  IngestClient client(daemon.grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&response));
  limit_file_size(daemon.pid(), 64 << 10);
  for (std::uint64_t first = 1; first <= 640; first += 64) {
    ASSERT_TRUE(client.send(make_batch(first, first + 63)));
  }
  ASSERT_TRUE(
      wait_until([&] { return http_request(daemon.http_port(), "/-/ready").status == 503; }));

  daemon.terminate();
  EXPECT_TRUE(wait_until([&] {
    const HttpAnswer answer = http_request(daemon.http_port(), "/-/ready");
    return answer.status == 503 && answer.body.find("shutting down") != std::string::npos;
  }));
  EXPECT_EQ(http_request(daemon.http_port(), "/-/healthy").status, 200);
  limit_file_size(daemon.pid(), RLIM_INFINITY);
  EXPECT_TRUE(client.receive_until(640));
  client.finish();
  EXPECT_EQ(daemon.wait(), 0);
}

TEST(DaemonStoreFailure, PeopleAreToldOfASpikeWhileNothingCanBeStored) {
  const TemporaryFolder folder;
  WebhookSink sink;
  const DaemonProcess daemon(
      {.data_dir = folder.path(),
       // What has changed since is told after the interval: not before the test is over.
       .config = "alerts:\n  interval_seconds: 300\n  sinks: [{type: webhook, url: \"" +
                 sink.url() + "\"}]\n"});
  IngestClient client(daemon.grpc_address());
  v1::IngestResponse response;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&response));
  ASSERT_TRUE(client.send(make_batch(1, 64)));
  ASSERT_TRUE(client.receive_until(64));

  limit_file_size(daemon.pid(), 64 << 10);
  const auto fails = [&] {
    return metric_value(http_request(daemon.http_port(), "/metrics").body,
                        "gradwarden_store_failing") == 1;
  };
  std::uint64_t first = 65;
  for (; first <= 640; first += 64) ASSERT_TRUE(client.send(make_batch(first, first + 63)));
  ASSERT_TRUE(wait_until(fails));
  v1::ReportBatch spike = make_batch(first, first + 63);
  spike.mutable_reports(10)->set_grad_norm(70);
  ASSERT_TRUE(client.send(spike));
  EXPECT_TRUE(wait_until([&] { return !sink.bodies().empty(); }));
  EXPECT_TRUE(fails()) << "told while nothing was stored";
  EXPECT_LT(client.acknowledged.size(), first - 1);
  EXPECT_THAT(sink.bodies().at(0), HasSubstr("grad_spike"));

  limit_file_size(daemon.pid(), RLIM_INFINITY);
  ASSERT_TRUE(client.receive_until(first + 63));
  EXPECT_TRUE(client.finish().ok());
  v1::ListEventsResponse events;
  ASSERT_TRUE(QueryClient(daemon.grpc_address()).list_events({}, &events).ok());
  EXPECT_GE(events.events_size(), 1) << "and stored afterwards";
  EXPECT_EQ(sink.bodies().size(), 1U) << "and not told again";
}

}  // namespace
}  // namespace gradwarden::testing
