// A long life in short: several runs stream to a real daemon that is killed, restarted, stopped and
// reloaded, with retention by size on. At every scrape the counters add up, memory and descriptors
// stay flat over the daemon's lives, and in the end the ledgers agree.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include "tests/e2e/daemon_process.h"
#include "tests/e2e/metrics_page.h"
#include "tests/fault/soak_stream.h"
#include "tests/full_length.h"

namespace gradwarden::testing {
namespace {

using std::chrono::milliseconds;

constexpr std::uint64_t kRuns = 4;
constexpr double kMegabyte = 1 << 20;

struct Lengths {
  std::uint64_t attempts;  // of each run
  std::uint64_t reports;   // of each attempt
  int lives;               // of the daemon
  std::uint64_t history_bytes;
};

Lengths lengths() {
  return full_or<Lengths>({50, 500'000, 40, 1 << 30}, {4, 250'000, 8, 48 << 20});
}

// What a life of the daemon needed at most.
struct Peaks {
  double resident_bytes = 0;
  std::size_t descriptors = 0;
};

class Soak : public ::testing::Test {
 protected:
  void SetUp() override {
    std::cout << "seed " << seed_ << "\n";
    start();
    for (std::uint64_t i = 0; i < kRuns; ++i) {
      streams_.push_back(
          std::make_unique<SoakStream>(address_, "run" + std::to_string(i), random_()));
    }
  }
  void TearDown() override {
    for (const auto& stream : streams_) stream->stop = true;
    daemon_.reset();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
  }

  void start() {
    DaemonProcess::Options options;
    options.data_dir = folder_.path();
    options.config = "store: {max_bytes: " + std::to_string(lengths_.history_bytes) +
                     ", protect_seconds: 2, prune_seconds: 1}\n";
    if (!address_.empty()) {
      options.grpc_listen = address_;
      options.http_listen = "127.0.0.1:" + std::to_string(http_port_);
    }
    daemon_ = std::make_unique<DaemonProcess>(options);
    address_ = daemon_->grpc_address();
    http_port_ = daemon_->http_port();
    peaks_.emplace_back();
  }

  void begin_streams() {
    for (const auto& stream : streams_) {
      threads_.emplace_back([this, raw = stream.get()] {
        try {
          raw->run(lengths_.attempts, lengths_.reports);
        } catch (const std::exception& error) {
          ADD_FAILURE() << error.what();
        }
        ++ended_;
      });
    }
  }

  std::uint64_t sent() const {
    std::uint64_t all = 0;
    for (const auto& stream : streams_) all += stream->sent;
    return all;
  }

  // The counters add up, and what the process has open and in memory is noted.
  void scrape() {
    const std::string page = http_request(http_port_, "/metrics").body;
    const auto value = [&page](const char* name) { return metric_value(page, name); };
    if (page.empty()) return;  // stopped, and asked too early
    ++scrapes_;
    EXPECT_EQ(
        value("gradwarden_reports_received_total"),
        value("gradwarden_reports_stored_total") + value("gradwarden_reports_duplicate_total") +
            value("gradwarden_reports_rejected_total") + value("gradwarden_reports_in_flight"));
    pruned_ = pruned_ || value("gradwarden_store_pruned_reports_total") > 0;
    const std::string process = "/proc/" + std::to_string(daemon_->pid());
    Peaks& peaks = peaks_.back();
    peaks.descriptors =
        std::max(peaks.descriptors, static_cast<std::size_t>(std::distance(
                                        std::filesystem::directory_iterator(process + "/fd"), {})));
    std::ifstream memory(process + "/statm");
    double pages = 0;
    memory >> pages >> pages;
    peaks.resident_bytes =
        std::max(peaks.resident_bytes, pages * static_cast<double>(::sysconf(_SC_PAGESIZE)));
  }

  void watch_until(std::uint64_t reports) {
    while (sent() < reports && ended_ < kRuns && !HasFailure()) {
      scrape();
      std::this_thread::sleep_for(milliseconds(20));
    }
  }

  // What happens to the daemon between two lives, or in the middle of one.
  void strike() {
    switch (random_() % 4) {
      case 0:
        ::kill(daemon_->pid(), SIGSTOP);
        std::this_thread::sleep_for(milliseconds(300));  // how long it is stopped
        ::kill(daemon_->pid(), SIGCONT);
        return;
      case 1:
        daemon_->terminate();
        EXPECT_EQ(daemon_->wait(), 0);
        break;
      default:
        daemon_->kill();
    }
    start();
    ::kill(daemon_->pid(), SIGHUP);
  }

  const std::uint64_t seed_ = std::random_device{}();
  const Lengths lengths_ = lengths();
  std::mt19937_64 random_{seed_};
  const TemporaryFolder folder_;
  std::string address_;
  int http_port_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<std::unique_ptr<SoakStream>> streams_;
  std::vector<std::thread> threads_;
  std::atomic<std::uint64_t> ended_{0};
  std::vector<Peaks> peaks_;  // of each life
  std::uint64_t scrapes_ = 0;
  bool pruned_ = false;
};

TEST_F(Soak, NothingIsLostOrCountedTwiceAndNothingGrows) {
  const std::uint64_t all = kRuns * lengths_.attempts * lengths_.reports;
  begin_streams();
  const auto lives = static_cast<std::uint64_t>(lengths_.lives);
  for (std::uint64_t life = 1; life < lives && !HasFailure(); ++life) {
    watch_until(all * life / lives);
    strike();
  }
  watch_until(all);
  ASSERT_FALSE(HasFailure());
  for (std::thread& thread : threads_) thread.join();
  scrape();

  // The ledgers.
  std::uint64_t doubled = 0, refused = 0, breaks = 0;
  QueryClient query(address_);
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    v1::GetRunResponse run;
    ASSERT_TRUE(query.get_run("run" + std::to_string(i), &run).ok());
    const auto& ledger = streams_[i]->ledger;
    ASSERT_EQ(ledger.size(), lengths_.attempts);
    ASSERT_EQ(static_cast<std::size_t>(run.attempts_size()), ledger.size());
    for (int a = 0; a < run.attempts_size(); ++a) {
      EXPECT_EQ(run.attempts(a).attempt(), ledger[static_cast<std::size_t>(a)].name);
      EXPECT_EQ(run.attempts(a).reports(), ledger[static_cast<std::size_t>(a)].reports);
      EXPECT_TRUE(run.attempts(a).finished());
    }
    doubled += streams_[i]->doubled;
    refused += streams_[i]->refused;
    breaks += streams_[i]->breaks;
  }
  EXPECT_GT(doubled, 0U);
  EXPECT_GT(refused, 0U);
  EXPECT_TRUE(pruned_) << "retention acted";

  // Later lives need no more than earlier ones.
  const auto most = [](auto first, auto last) {
    Peaks peak;
    for (; first != last; ++first) {
      peak.resident_bytes = std::max(peak.resident_bytes, first->resident_bytes);
      peak.descriptors = std::max(peak.descriptors, first->descriptors);
    }
    return peak;
  };
  const auto middle = peaks_.begin() + static_cast<std::ptrdiff_t>((peaks_.size() + 1) / 2);
  const Peaks early = most(peaks_.begin(), middle);
  const Peaks late = most(middle, peaks_.end());
  EXPECT_LE(late.resident_bytes, 1.25 * early.resident_bytes + 32 * kMegabyte);
  EXPECT_LE(late.descriptors, early.descriptors + 16);
  EXPECT_LT(std::max(early.resident_bytes, late.resident_bytes), 256 * kMegabyte);
  std::cout << all << " reports, " << doubled << " sent twice, " << refused << " refused, "
            << breaks << " streams broken, " << peaks_.size() << " lives of the daemon, "
            << scrapes_ << " scrapes; at most " << early.resident_bytes / kMegabyte << " MiB and "
            << early.descriptors << " descriptors in the first lives, "
            << late.resident_bytes / kMegabyte << " MiB and " << late.descriptors
            << " in the last\n";
}

}  // namespace
}  // namespace gradwarden::testing
