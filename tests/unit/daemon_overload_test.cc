// Ingest with more than it has memory for: who is asked to wait, who is refused, and that nothing
// is forgotten. The real service in this process, over a store that commits when the test lets it.
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "daemon/ingest/ingest_service.h"
#include "daemon/store/sqlite_store.h"
#include "tests/e2e/ingest_client.h"

namespace gradwarden::ingest {
namespace {

using testing::IngestClient;

constexpr std::size_t kMega = 1 << 20;

// A history whose commits wait while the gate is closed.
class GatedStore final : public store::Store {
 public:
  explicit GatedStore(const std::string& folder)
      : store_(*store::SqliteStore::open({folder, store::Durability::kProcess})) {}

  absl::Status commit(const std::vector<const store::CommitItem*>& items) override {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
    return store_->commit(items);
  }
  absl::StatusOr<std::unique_ptr<store::StoreReader>> open_reader() override {
    return store_->open_reader();
  }
  void set_open(bool open) {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = open;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = true;  // guarded by mutex_
  const std::unique_ptr<store::SqliteStore> store_;
};

class OverloadTest : public ::testing::Test {
 protected:
  void start(std::size_t queue_bytes, std::size_t memory_bytes) {
    IngestOptions options;
    options.queue_bytes = queue_bytes;
    options.memory_bytes = memory_bytes;
    options.stream_window = 100'000;
    context_.reset(new IngestContext{.options = options,
                                     .version = "1",
                                     .store = *store_,
                                     .writer = writer_,
                                     .metrics = metrics_,
                                     .runs = runs_,
                                     .publish = [](const v1::Event&) {},
                                     .now_ns = [] { return std::uint64_t{42}; },
                                     .worker_count = 1});
    std::vector<std::unique_ptr<store::StoreReader>> readers;
    readers.push_back(*store_->open_reader());
    service_ = std::make_unique<IngestService>(*context_, std::move(readers));
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(16 << 20);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    address_ = std::string("127.0.0.1:").append(std::to_string(port));
  }
  void TearDown() override {
    store_->set_open(true);
    service_->drain(std::chrono::steady_clock::now() + std::chrono::seconds(30));
    server_->Shutdown(std::chrono::system_clock::now());
    writer_.stop(std::chrono::steady_clock::now() + std::chrono::seconds(30));
    server_.reset();
    service_.reset();
    std::filesystem::remove_all(folder_);
  }
  // Connected and greeted.
  std::unique_ptr<IngestClient> connect(const std::string& run, int groups = 0) {
    auto client = std::make_unique<IngestClient>(address_);
    v1::Hello hello = testing::make_hello(run, "a1");
    for (int g = 0; g < groups; ++g) hello.add_groups(std::to_string(g));
    v1::IngestResponse response;
    EXPECT_TRUE(client->send(hello));
    EXPECT_TRUE(client->receive(&response));
    EXPECT_TRUE(response.has_welcome());
    return client;
  }
  static bool soon(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  const std::string folder_ = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "gradwarden-XXXXXX").string();
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    return pattern;
  }();
  const std::unique_ptr<GatedStore> store_ = std::make_unique<GatedStore>(folder_);
  store::CommitWriter writer_{*store_, {}, {}};
  metrics::DaemonMetrics metrics_;
  metrics::RunRegistry runs_{10, 1'000'000'000};
  std::unique_ptr<IngestContext> context_;
  std::unique_ptr<IngestService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

std::string run_name(int number) { return std::string("run").append(std::to_string(number)); }

bool asks_to_wait(const v1::IngestResponse& response) {
  return response.retry_delay().seconds() > 0 || response.retry_delay().nanos() > 0;
}

TEST_F(OverloadTest, AGreedyRunIsAskedToWaitWhileAnotherIsTakenAndAllOfBothIsStored) {
  constexpr std::uint64_t kBatches = 2000;
  constexpr std::uint64_t kBatch = 50;
  start(8 * kMega, 32 * kMega);
  const auto greedy = connect("greedy");
  const auto small = connect("small");
  store_->set_open(false);
  std::thread sender([&] {
    for (std::uint64_t i = 0; i < kBatches; ++i) {
      ASSERT_TRUE(greedy->send(testing::make_batch(1 + i * kBatch, (i + 1) * kBatch)));
    }
  });
  v1::IngestResponse response;
  EXPECT_TRUE(greedy->receive(&response));
  EXPECT_TRUE(asks_to_wait(response));
  EXPECT_EQ(response.acknowledgement().stored_size(), 0);
  EXPECT_LE(metrics_.message_memory.load(), 8 * kMega);
  // Judged, though what the greedy one sent still waits: a rejection is counted at once.
  v1::ReportBatch batch = testing::make_batch(1, 2);
  batch.mutable_reports(1)->set_clip_coefficient(-1);
  EXPECT_TRUE(small->send(batch));
  EXPECT_TRUE(soon([&] { return metrics_.rejected.load() == 1; }));
  EXPECT_LT(metrics_.received.load(), kBatches * kBatch / 2);

  store_->set_open(true);
  EXPECT_TRUE(small->receive_until(2));
  EXPECT_TRUE(greedy->receive_until(kBatches * kBatch));
  sender.join();
  EXPECT_EQ(greedy->acknowledged.size(), kBatches * kBatch);
  EXPECT_EQ(small->acknowledged.size(), 1u);
  EXPECT_EQ(metrics_.stored.load(), kBatches * kBatch + 1);
  EXPECT_EQ(metrics_.duplicate.load(), 0u);
  EXPECT_TRUE(soon([&] { return metrics_.message_memory.load() == 0; }));
}

// 3.9 MB.
v1::ReportBatch large_batch() {
  v1::ReportBatch batch = testing::make_batch(1, 1000);
  for (v1::Report& report : *batch.mutable_reports()) {
    for (int g = 0; g < 480; ++g) report.add_group_norms(1);
  }
  return batch;
}

TEST_F(OverloadTest, WhatDoesNotFitIsRefusedWithADelayAndIsTakenWhenItComesAgain) {
  constexpr int kRuns = 8;  // which can send at once what is more than the memory
  start(8 * kMega, 32 * kMega);
  std::vector<std::unique_ptr<IngestClient>> clients;
  for (int i = 0; i < kRuns; ++i) clients.push_back(connect(run_name(i), 480));
  store_->set_open(false);
  std::vector<std::thread> senders;
  for (auto& client : clients) senders.emplace_back([&client] { client->send(large_batch()); });
  const auto refused = [&] {
    return metrics_.limited[static_cast<std::size_t>(metrics::Limit::kMemoryBytes)].load();
  };
  const auto taken = [&] { return metrics_.queue_messages.load(); };
  ASSERT_TRUE(soon([&] { return taken() + refused() == kRuns; })) << taken() << " " << refused();
  EXPECT_LE(metrics_.message_memory.load() + metrics_.run_memory.load(), 24 * kMega);
  EXPECT_GE(refused(), 2u);
  for (std::thread& sender : senders) sender.join();
  store_->set_open(true);
  std::uint64_t turned_away = 0;
  for (int i = 0; i < kRuns; ++i) {
    if (clients[i]->receive_until(1000)) continue;
    ++turned_away;
    EXPECT_TRUE(clients[i]->delayed) << "refused without a delay";
    EXPECT_EQ(clients[i]->finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    clients[i] = connect(run_name(i), 480);
    EXPECT_TRUE(clients[i]->send(large_batch()));
    EXPECT_TRUE(clients[i]->receive_until(1000));
  }
  EXPECT_EQ(turned_away, refused());
  EXPECT_EQ(metrics_.stored.load(), 1000u * kRuns);
  EXPECT_EQ(metrics_.duplicate.load(), 0u);
}

TEST_F(OverloadTest, ARunThatFindsNoRoomIsRefusedWithADelayAndTakenOnceOthersAreGone) {
  // Half of 4 MiB is room for less than a hundred runs.
  start(kMega, 4 * kMega);
  std::vector<std::unique_ptr<IngestClient>> clients;
  int count = 0;
  while (metrics_.limited[static_cast<std::size_t>(metrics::Limit::kMemoryBytes)] == 0) {
    ASSERT_LT(++count, 100);
    clients.push_back(std::make_unique<IngestClient>(address_));
    v1::IngestResponse response;
    EXPECT_TRUE(clients.back()->send(testing::make_hello(run_name(count), "a1")));
    EXPECT_TRUE(clients.back()->receive(&response));
    EXPECT_NE(response.has_welcome(), asks_to_wait(response));
  }
  EXPECT_EQ(clients.back()->finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_LE(metrics_.run_memory.load(), 2 * kMega);
  clients.pop_back();
  EXPECT_GT(clients.size(), 20u);
  EXPECT_TRUE(clients.front()->finish().ok());  // its memory is that of a run without streams
  EXPECT_TRUE(soon([&] {
    IngestClient again(address_);
    v1::IngestResponse response;
    return again.send(testing::make_hello(run_name(count), "a1")) && again.receive(&response) &&
           response.has_welcome();
  }));
}

}  // namespace
}  // namespace gradwarden::ingest
