// A webhook that is away for ten minutes, and a daemon that is killed meanwhile.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/e2e/webhook_sink.h"
#include "tests/full_length.h"

namespace gradwarden::testing {
namespace {

using std::chrono::steady_clock;

bool eventually(const std::function<bool()>& condition) {
  const auto deadline = steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

class SinkOutage : public ::testing::Test {
 protected:
  void start() {
    daemon_.reset();
    daemon_ = std::make_unique<DaemonProcess>(DaemonProcess::Options{
        .data_dir = folder_.path(),
        .config = "alerts:\n  interval_seconds: 1\n  sinks:\n    - {type: webhook, url: \"" +
                  away_.url() + "\"}\n    - {type: webhook, url: \"" + other_.url() + "\"}\n"});
  }

  // A run of its own for each incident, with one spike.
  void spike(const std::string& run) {
    IngestClient client(daemon_->grpc_address());
    ASSERT_TRUE(client.send(make_hello(run, "a1")));
    v1::IngestResponse welcome;
    ASSERT_TRUE(client.receive(&welcome));
    v1::ReportBatch batch = make_batch(1, 210);
    batch.mutable_reports(204)->set_grad_norm(50);
    ASSERT_TRUE(client.send(batch));
    ASSERT_TRUE(client.receive_until(210));
    ASSERT_TRUE(client.finish().ok());
    runs_.push_back(run);
  }

  // How often the sink was told that the spike of each run fires.
  static std::map<std::string, int> fired(WebhookSink& sink) {
    std::map<std::string, int> times;
    for (const std::string& body : sink.bodies()) {
      const nlohmann::json message = nlohmann::json::parse(body, nullptr, false);
      for (const auto& alert : message.value("alerts", nlohmann::json::array())) {
        if (alert.value("kind", "") == "grad_spike" && alert.value("status", "") == "firing") {
          ++times[alert.value("run", "")];
        }
      }
    }
    return times;
  }
  bool all_told(WebhookSink& sink) const { return fired(sink).size() == runs_.size(); }

  const TemporaryFolder folder_;
  WebhookSink away_;
  WebhookSink other_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<std::string> runs_;
};

// Goal 23.
TEST_F(SinkOutage, EveryIncidentArrivesAfterItAtMostTwiceThoughTheDaemonIsKilledInBetween) {
  start();
  spike("before");
  ASSERT_TRUE(eventually([&] { return all_told(away_) && all_told(other_); }));

  away_.go_away();
  const auto back =
      steady_clock::now() + full_or(std::chrono::seconds(600), std::chrono::seconds(2));
  for (int i = 0; i < 3 || steady_clock::now() < back; ++i) {
    ASSERT_NO_FATAL_FAILURE(spike("during" + std::to_string(i)));
    EXPECT_TRUE(eventually([&] { return all_told(other_); })) << "the other sink waits for nobody";
    if (i == 1) {
      daemon_->kill();
      start();
    }
    std::this_thread::sleep_for(full_or(10, 0) * std::chrono::seconds(1));  // one now and then
  }
  EXPECT_EQ(fired(away_).size(), 1U);
  away_.come_back();
  EXPECT_TRUE(eventually([&] { return all_told(away_); }));
  for (const auto& [run, times] : fired(away_)) EXPECT_LE(times, 2) << run;
  for (const auto& [run, times] : fired(other_)) EXPECT_LE(times, 2) << run;
  std::cout << runs_.size() << " incidents\n";
}

}  // namespace
}  // namespace gradwarden::testing
