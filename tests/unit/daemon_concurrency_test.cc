// The daemon's threads at work together without gRPC: workers, the store's writer and checkpointer,
// readers, watchers and scrapes. What it asserts holds under every interleaving; its other purpose
// is to be run under ThreadSanitizer with nothing suppressed.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>
#include <thread>

#include "daemon/ingest/run_worker.h"
#include "daemon/metrics/collector.h"
#include "daemon/query/event_hub.h"
#include "daemon/query/reader_pool.h"
#include "daemon/query/run_summary.h"
#include "daemon/store/sqlite_store.h"
#include "tests/e2e/metrics_page.h"

namespace gradwarden::ingest {
namespace {

constexpr std::uint64_t kBatches = 60;
constexpr std::uint64_t kBatch = 32;
constexpr int kRuns = 4;

// Collects answers; waits for as many as messages were sent.
class FakeSession final : public Session {
 public:
  void answer(const v1::IngestResponse& response, std::size_t) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    ++answers_;
    for (const auto& range : response.acknowledgement().stored()) {
      for (std::uint64_t s = range.first(); s <= range.last(); ++s) acknowledged_.insert(s);
    }
    changed_.notify_all();
  }
  void fail(const absl::Status& status) override { ADD_FAILURE() << status; }
  void wait_for(std::size_t answers) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return answers_ >= answers; });
  }
  std::size_t acknowledged() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return acknowledged_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t answers_ = 0;
  std::set<std::uint64_t> acknowledged_;
};

v1::ReportBatch make_batch(std::uint64_t first) {
  v1::ReportBatch batch;
  for (std::uint64_t i = first; i < first + kBatch; ++i) {
    v1::Report& report = *batch.add_reports();
    report.set_sequence(i);
    report.set_step(i);
    report.set_grad_norm(i % 200 == 150 ? 30 : 1);
    report.set_clip_coefficient(1);
    report.set_decision(v1::DECISION_APPLY);
  }
  return batch;
}

// A client of one run: two sessions that send the same reports.
void drive(RunWorker& worker, const std::string& run) {
  v1::IngestRequest hello;
  hello.mutable_hello()->set_run(run);
  hello.mutable_hello()->set_attempt("a1");
  hello.mutable_hello()->set_world_size(1);
  const auto line = std::make_shared<RunLine>();
  const std::shared_ptr<FakeSession> sessions[] = {std::make_shared<FakeSession>(),
                                                   std::make_shared<FakeSession>()};
  for (const auto& session : sessions) {
    worker.submit(line, {Inbound::Kind::kRequest, session, hello.SerializeAsString()});
    for (std::uint64_t i = 0; i < kBatches; ++i) {
      worker.submit(
          line, {Inbound::Kind::kBatch, session, make_batch(1 + i * kBatch).SerializeAsString()});
    }
  }
  for (const auto& session : sessions) {
    session->wait_for(1 + kBatches);
    EXPECT_EQ(session->acknowledged(), kBatches * kBatch);
    worker.submit(line, {Inbound::Kind::kClosed, session, {}});
  }
}

TEST(DaemonConcurrency, AllThreadsTogetherCountEachReportOnceAndShowConsistentPages) {
  std::string folder = (std::filesystem::temp_directory_path() / "gradwarden-XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  // The log is made before the threads, as gradwardend does it: its library comes uninstrumented,
  // so that ThreadSanitizer would not see how threads that make it at the same time take turns.
  spdlog::set_level(spdlog::level::info);
  {
    auto store = *store::SqliteStore::open({folder, store::Durability::kProcess});
    metrics::DaemonMetrics counters;
    metrics::RunRegistry runs(100, 1'000'000);
    const metrics::Collector collector(counters, runs, "1", [] { return std::uint64_t{1000}; });
    query::EventHub hub(10000);
    store::CommitWriter writer(*store, {}, {});
    const IngestOptions options;
    IngestContext context{.options = options,
                          .version = "1",
                          .store = *store,
                          .writer = writer,
                          .metrics = counters,
                          .runs = runs,
                          .publish = [&](const v1::Event& event) { hub.publish(event); },
                          .now_ns = [] { return std::uint64_t{1000}; }};
    std::mutex watch_mutex;
    std::uint64_t notified = 0;
    const query::EventHub::Id watcher = hub.watch("", [&] {
      const std::lock_guard<std::mutex> lock(watch_mutex);
      ++notified;
    });
    std::vector<std::unique_ptr<store::StoreReader>> readers;
    readers.push_back(*store->open_reader());
    readers.push_back(*store->open_reader());
    query::ReaderPool pool(std::move(readers), 100000);
    auto one = std::make_unique<RunWorker>(context, *store->open_reader());
    auto two = std::make_unique<RunWorker>(context, *store->open_reader());

    std::atomic<bool> stop{false};
    std::thread scraper([&] {
      while (!stop) {
        const std::string page = collector.text();
        EXPECT_GE(testing::metric_value(page, "gradwarden_reports_in_flight"), 0);
        pool.submit([](store::StoreReader& reader) { EXPECT_TRUE(query::list_runs(reader).ok()); });
        hub.take(watcher);
      }
    });
    std::vector<std::thread> clients;
    for (int i = 0; i < kRuns; ++i) {
      clients.emplace_back([&, i] { drive(i % 2 == 0 ? *one : *two, "run" + std::to_string(i)); });
    }
    for (std::thread& client : clients) client.join();
    stop = true;
    scraper.join();
    one.reset();
    two.reset();
    EXPECT_TRUE(writer.stop(std::chrono::steady_clock::now() + std::chrono::seconds(60)));
    EXPECT_EQ(counters.stored.load(), kRuns * kBatches * kBatch);
    EXPECT_EQ(counters.duplicate.load(), kRuns * kBatches * kBatch);
    EXPECT_EQ(counters.received.load(), 2 * kRuns * kBatches * kBatch);
    const std::lock_guard<std::mutex> lock(watch_mutex);
    EXPECT_GT(notified, 0u);
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace gradwarden::ingest
