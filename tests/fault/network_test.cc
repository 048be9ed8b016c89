// A trainer's reporter and a real daemon in two network namespaces, and what lies between them:
// delay, loss, nothing at all. Skipped, and said, where namespaces may not be made.
//
// Goal 13: steps go on, memory stays within its bounds, drops are counted, and what was not dropped
// is delivered in order, once.
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "gradwarden/reporter.h"
#include "tests/e2e/daemon_process.h"
#include "tests/e2e/ingest_client.h"
#include "tests/fault/lossy_wire.h"
#include "tests/full_length.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden::testing {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kRingBytes = 256 << 10;
constexpr std::uint64_t kBacklogBytes = 2 << 20;  // some two thousand reports
// What gRPC and the allocator may take besides, however long it lasts.
constexpr std::uint64_t kOtherBytes = 24 << 20;

std::uint64_t resident_bytes() {
  std::ifstream memory("/proc/self/statm");
  std::uint64_t pages = 0;
  memory >> pages >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// How often this thread has waited for anything.
long waits() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

class Network : public ::testing::Test {
 protected:
  void SetUp() override {
    // Before gRPC has any thread: each ctest case is a process of its own.
    if (const std::string no = LossyWire::refusal(); !no.empty()) GTEST_SKIP() << no;
    const std::uint64_t seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    wire_ = std::make_unique<LossyWire>(seed);
    wire_->on_daemon_side([this] {
      DaemonProcess::Options options;
      options.data_dir = folder_.path();
      options.grpc_listen = std::string(LossyWire::kDaemonAddress) + ":7460";
      options.arguments = {"--allow-insecure-listen"};
      daemon_ = std::make_unique<DaemonProcess>(options);
    });
    ReporterOptions options = test::options_for(std::string(LossyWire::kDaemonAddress) + ":7460");
    options.ring_bytes = kRingBytes;
    options.backlog_bytes = kBacklogBytes;
    options.close_timeout = std::chrono::seconds(60);
    reporter_ = std::make_unique<Reporter>(options, ranks_);
    reporter_->begin(test::shape_of());
    train_until([this] { return reporter_->statistics().acknowledged >= 100; });
  }

  // Steps, each followed by a moment of work, until the condition holds.
  void train_until(const std::function<bool()>& condition,
                   std::chrono::seconds limit = std::chrono::seconds(120)) {
    const auto deadline = Clock::now() + limit;
    while (!condition()) {
      ASSERT_LT(Clock::now(), deadline);
      const long before = waits();
      reporter_->submit(test::record_of(++step_));
      waited_ += waits() - before;
      std::this_thread::sleep_for(milliseconds(1));
      most_bytes_ = std::max(most_bytes_, resident_bytes());
    }
  }
  // The length of a fault: ten minutes, or as long as it takes to drop some reports.
  void train_through_it() {
    const std::uint64_t before = resident_bytes();
    most_bytes_ = 0;
    waited_ = 0;
    const auto least = Clock::now() + full_or(std::chrono::seconds(600), std::chrono::seconds(2));
    train_until([&] { return Clock::now() > least; }, std::chrono::seconds(900));
    // Not 0: a page fault in submit() that has to wait, for memory or for another thread's fault,
    // is counted too. Had submit() waited for the network, it would be in a good part of the steps.
    EXPECT_LE(waited_, 3) << "the trainer's thread waited in submit()";
    EXPECT_LT(most_bytes_, before + kRingBytes + kBacklogBytes + kOtherBytes);
  }

  // All is delivered but what was dropped, in order and once.
  void settle_accounts(bool expect_drops) {
    EXPECT_EQ(reporter_->close(), !expect_drops);
    const ReporterStatistics statistics = reporter_->statistics();
    EXPECT_EQ(statistics.submitted, step_);
    EXPECT_EQ(statistics.pending, 0U);
    EXPECT_EQ(statistics.acknowledged + statistics.dropped, step_);
    EXPECT_EQ(statistics.dropped > 0, expect_drops) << statistics.dropped;
    daemon_->terminate();
    EXPECT_EQ(daemon_->wait(), 0);
    std::uint64_t stored = 0;
    std::uint64_t last = 0;
    for (const auto& [first_sequence, last_sequence] : segments()) {
      EXPECT_GT(first_sequence, last) << "out of order";
      last = last_sequence;
      stored += last_sequence - first_sequence + 1;
    }
    // Some may have arrived that were given up before their answer came.
    EXPECT_GE(stored, statistics.acknowledged);
    EXPECT_LE(stored, step_);
    std::cout << step_ << " steps, " << stored << " delivered, " << statistics.dropped
              << " dropped, " << statistics.connects << " connections, " << wire_->carried
              << " packets carried, " << wire_->lost << " lost\n";
  }

  // Sequences of the stored segments in the order in which they were stored.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> segments() const {
    sqlite3* file = nullptr;
    sqlite3_stmt* rows = nullptr;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
    EXPECT_EQ(sqlite3_open((folder_.path() + "/history.sqlite").c_str(), &file), SQLITE_OK);
    EXPECT_EQ(
        sqlite3_prepare_v2(file, "SELECT first_sequence, last_sequence FROM segments ORDER BY id",
                           -1, &rows, nullptr),
        SQLITE_OK);
    while (sqlite3_step(rows) == SQLITE_ROW) {
      found.emplace_back(sqlite3_column_int64(rows, 0), sqlite3_column_int64(rows, 1));
    }
    sqlite3_finalize(rows);
    sqlite3_close(file);
    return found;
  }

  const TemporaryFolder folder_;
  std::unique_ptr<LossyWire> wire_;
  std::unique_ptr<DaemonProcess> daemon_;
  SingleRank ranks_;
  std::unique_ptr<Reporter> reporter_;
  std::uint64_t step_ = 0;
  long waited_ = 0;
  std::uint64_t most_bytes_ = 0;
};

TEST_F(Network, BehindThreeHundredMillisecondsOfDelayNothingIsLost) {
  wire_->delay_ms = 300;
  train_through_it();
  settle_accounts(false);
}

TEST_F(Network, BehindATenthOfAllPacketsLostNothingIsLost) {
  wire_->loss = 10;
  wire_->delay_ms = 20;
  train_through_it();
  wire_->loss = 0;
  settle_accounts(false);
}

TEST_F(Network, ABlackHoleCostsOnlyReportsThatAreCounted) {
  wire_->swallows = true;
  train_through_it();
  train_until([this] { return reporter_->statistics().dropped > 300; });
  wire_->swallows = false;
  settle_accounts(true);
}

TEST_F(Network, AStoppedDaemonCostsOnlyReportsThatAreCounted) {
  ASSERT_EQ(::kill(daemon_->pid(), SIGSTOP), 0);
  train_through_it();
  train_until([this] { return reporter_->statistics().dropped > 300; });
  ASSERT_EQ(::kill(daemon_->pid(), SIGCONT), 0);
  settle_accounts(true);
}

TEST_F(Network, AnAbsentDaemonCostsOnlyReportsThatAreCounted) {
  daemon_->kill();
  train_through_it();
  train_until([this] { return reporter_->statistics().dropped > 300; });
  wire_->on_daemon_side([this] {
    DaemonProcess::Options options;
    options.data_dir = folder_.path();
    options.grpc_listen = std::string(LossyWire::kDaemonAddress) + ":7460";
    options.arguments = {"--allow-insecure-listen"};
    daemon_ = std::make_unique<DaemonProcess>(options);
  });
  settle_accounts(true);
}

}  // namespace
}  // namespace gradwarden::testing
