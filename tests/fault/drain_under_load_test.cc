// SIGTERM while 256 runs report ten steps a second with 64 groups each, and 256 ranks send
// heartbeats.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::testing {
namespace {

using std::chrono::milliseconds;

constexpr int kRuns = 256;
constexpr int kRanks = 256;
constexpr int kGroups = 64;
constexpr milliseconds kPeriod{100};

std::string run_name(int i) { return "run" + std::to_string(i); }

v1::Hello hello_of(const std::string& run, std::uint32_t rank = 0, std::uint32_t ranks = 1) {
  v1::Hello hello = make_hello(run, "a1", rank, ranks);
  for (int g = 0; g < kGroups; ++g) hello.add_groups("layer" + std::to_string(g));
  return hello;
}

// One stream: sends, waits for the answer, and then for the next period, until the daemon ends.
class Sender {
 public:
  Sender(const std::string& daemon, const v1::Hello& hello)
      : client_(daemon), hello_(hello), thread_([this] { run(); }) {}
  ~Sender() { join(); }
  // To the end of the stream.
  void join() {
    if (thread_.joinable()) thread_.join();
  }

  std::atomic<std::uint64_t> acknowledged{0};

 private:
  void run() {
    v1::IngestResponse response;
    if (!client_.send(hello_) || !client_.receive(&response)) return;
    for (std::uint64_t i = 1; hello_.rank() == 0 ? report(i) : heartbeat(i); ++i) {
      std::this_thread::sleep_for(kPeriod);  // what a step takes
    }
  }
  bool report(std::uint64_t i) {
    v1::ReportBatch batch = make_batch(i, i);
    for (int g = 0; g < kGroups; ++g) batch.mutable_reports(0)->add_group_norms(0.1);
    if (!client_.send(batch) || !client_.receive_until(i)) return false;
    acknowledged = i;
    return true;
  }
  bool heartbeat(std::uint64_t i) {
    v1::IngestRequest request;
    request.mutable_heartbeat()->set_step(i);
    request.mutable_heartbeat()->set_phase(v1::PHASE_TRAINING);
    return client_.send(request);
  }

  IngestClient client_;
  const v1::Hello hello_;
  std::thread thread_;
};

// Goal 29.
TEST(DrainUnderLoad, SigtermAtTheReferenceLoadLosesNothingThatWasAcknowledged) {
  const TemporaryFolder folder;
  std::vector<std::uint64_t> acknowledged;
  {
    DaemonProcess daemon({folder.path()});
    std::vector<std::unique_ptr<Sender>> senders;
    for (int i = 0; i < kRuns; ++i) {
      senders.push_back(std::make_unique<Sender>(
          daemon.grpc_address(), hello_of(run_name(i), 0, i == 0 ? kRanks + 1 : 1)));
    }
    std::vector<std::unique_ptr<Sender>> ranks;
    for (int i = 1; i <= kRanks; ++i) {
      ranks.push_back(std::make_unique<Sender>(
          daemon.grpc_address(), hello_of(run_name(0), static_cast<std::uint32_t>(i), kRanks + 1)));
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    for (const auto& sender : senders) {
      while (sender->acknowledged < 10) {
        ASSERT_LT(std::chrono::steady_clock::now(), deadline);
        std::this_thread::sleep_for(milliseconds(10));
      }
    }
    daemon.terminate();
    // By itself it waits no longer than drain_seconds, 8.
    EXPECT_EQ(daemon.wait(std::chrono::seconds(60)), 0);
    EXPECT_NE(daemon.log().find("everything received is stored and answered"), std::string::npos);
    ranks.clear();
    for (const auto& sender : senders) {
      sender->join();
      acknowledged.push_back(sender->acknowledged);
    }
  }
  const DaemonProcess again({folder.path()});
  v1::ListRunsResponse runs;
  ASSERT_TRUE(QueryClient(again.grpc_address()).list_runs(&runs).ok());
  ASSERT_EQ(runs.runs_size(), kRuns);
  for (const v1::RunSummary& run : runs.runs()) {
    const std::uint64_t known = acknowledged[std::stoul(run.run().substr(3))];
    EXPECT_GE(run.reports(), known) << run.run();
    EXPECT_LE(run.reports(), known + 1) << run.run();  // one more was under way at most
  }
}

}  // namespace
}  // namespace gradwarden::testing
