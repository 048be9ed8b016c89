// The spool alone, and a reporter with one whose daemon comes late, goes away or never was.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "client/reporter/spool.h"
#include "tests/unit/fake_daemon.h"
#include "tests/unit/ranks_harness.h"
#include "tests/unit/reporter_fixture.h"

namespace gradwarden {
namespace {

namespace fs = std::filesystem;
using reporter::Spool;
using test::eventually;
using test::FakeDaemon;

constexpr std::uint64_t kMiB = 1 << 20;

class SpoolTest : public ::testing::Test {
 protected:
  SpoolTest() {
    std::string pattern = (fs::temp_directory_path() / "gradwarden-spool-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~SpoolTest() override { fs::remove_all(folder_); }

  static v1::Hello hello(const std::string& attempt = "20260101T000000Z-1") {
    v1::Hello hello;
    hello.set_run("run");
    hello.set_attempt(attempt);
    hello.set_world_size(1);
    return hello;
  }
  // Of about a KiB.
  static v1::Report report(std::uint64_t sequence) {
    v1::Report report;
    report.set_sequence(sequence);
    report.set_step(sequence);
    report.add_batch_ids(std::string(1000, 'b'));
    return report;
  }
  std::unique_ptr<Spool> create(const v1::Hello& of = hello(), std::uint64_t bytes = 8 * kMiB) {
    std::string error;
    auto spool = Spool::create(folder_, of, bytes, &error);
    EXPECT_NE(spool, nullptr) << error;
    return spool;
  }
  static void append(Spool& spool, std::uint64_t first, std::uint64_t last,
                     bool in_memory = false) {
    std::string error;
    for (std::uint64_t s = first; s <= last; ++s) {
      ASSERT_TRUE(spool.append(report(s), in_memory, &error)) << error;
    }
  }
  static std::vector<std::uint64_t> read_all(Spool& spool) {
    std::vector<std::uint64_t> sequences;
    v1::Report report;
    while (spool.read(report)) sequences.push_back(report.sequence());
    return sequences;
  }
  static std::vector<std::uint64_t> range(std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> sequences;
    for (std::uint64_t s = first; s <= last; ++s) sequences.push_back(s);
    return sequences;
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  std::string folder_;
};

TEST_F(SpoolTest, GivesBackInOrderWhatMemoryHadNoRoomFor) {
  const auto spool = create();
  append(*spool, 1, 10, /*in_memory=*/true);
  append(*spool, 11, 3000);
  EXPECT_EQ(spool->unread(), 2990U);
  v1::Report report;
  for (std::uint64_t s = 11; s <= 1000; ++s) {
    ASSERT_TRUE(spool->read(report));
    ASSERT_EQ(report.sequence(), s);
  }
  append(*spool, 3001, 3100);
  EXPECT_EQ(read_all(*spool), range(1001, 3100));
  EXPECT_EQ(spool->unread(), 0U);
}

TEST_F(SpoolTest, FilesGoAsTheirReportsAreSettled) {
  const auto spool = create();
  append(*spool, 1, 4000, true);
  const std::size_t most = files();
  ASSERT_GE(most, 4U);
  spool->settle(2500);
  EXPECT_LT(files(), most);
  const std::uint64_t bytes = spool->bytes();
  spool->settle(2500);
  EXPECT_EQ(spool->bytes(), bytes);
  spool->settle(4000);
  EXPECT_EQ(files(), 1U) << "the lock";
  append(*spool, 4001, 4002);
  EXPECT_EQ(read_all(*spool), range(4001, 4002));
}

TEST_F(SpoolTest, TheOldestFileGoesAndWhatWasUnreadInItIsCounted) {
  const auto spool = create(hello(), kMiB);
  append(*spool, 1, 50, true);
  append(*spool, 51, 2000);
  std::uint64_t lost = 0;
  std::uint64_t last = 0;
  while (spool->full()) {
    const Spool::Dropped dropped = spool->drop_oldest();
    EXPECT_EQ(dropped.first, last + 1);
    last = dropped.last;
    lost += dropped.unread;
  }
  EXPECT_EQ(lost, last - 50);
  EXPECT_LE(spool->bytes(), kMiB);
  EXPECT_EQ(read_all(*spool), range(last + 1, 2000));
}

TEST_F(SpoolTest, TheNextAttemptTakesOverWhatNobodyOwns) {
  {
    const auto dead = create(hello("20260101T000000Z-1"));
    append(*dead, 500, 1700, true);
  }
  {
    const auto other = create(hello("20260102T000000Z-2"));
    append(*other, 1, 3, true);
  }
  v1::Hello foreign = hello("20260103T000000Z-3");
  foreign.set_run("another run");
  append(*create(foreign), 1, 3, true);
  const auto living = create(hello("20260104T000000Z-4"));
  append(*living, 1, 3, true);
  const auto found = Spool::take_over(folder_, "run");
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]->hello().attempt(), "20260101T000000Z-1");
  EXPECT_EQ(read_all(*found[0]), range(500, 1700));
  EXPECT_EQ(read_all(*found[1]), range(1, 3));
  EXPECT_TRUE(Spool::take_over(folder_, "run").empty()) << "they have an owner now";
}

TEST_F(SpoolTest, ATornTailAndFlippedBytesCostOnlyTheirReports) {
  {
    const auto dead = create();
    append(*dead, 1, 100, true);
  }
  std::string path;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".gwspool") path = entry.path().string();
  }
  fs::resize_file(path, fs::file_size(path) - 10);
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(fs::file_size(path) / 2));
    file << "flipped";
  }
  const auto found = Spool::take_over(folder_, "run");
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(read_all(*found[0]).size(), 98U);
}

TEST_F(SpoolTest, FilesThatAreGoneEndTheReadingAndTheirReportsAreCountedAsLost) {
  const auto spool = create();
  append(*spool, 1, 10, /*in_memory=*/true);
  append(*spool, 11, 3000);
  v1::Report report;
  ASSERT_TRUE(spool->read(report));
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".gwspool") fs::remove(entry.path());
  }
  // What is open already can be read to its end.
  const std::size_t read = read_all(*spool).size();
  EXPECT_LT(read, 1500U);
  EXPECT_EQ(spool->take_lost(), 3000 - 11 - read);
  EXPECT_EQ(spool->unread(), 0U);
  append(*spool, 3001, 3100);
  EXPECT_EQ(read_all(*spool), range(3001, 3100));
  EXPECT_EQ(spool->take_lost(), 0U);
}

TEST_F(SpoolTest, AFileThatCannotBeOpenedNowIsReadLater) {
  const auto spool = create();
  append(*spool, 1, 3000);
  const std::string moved = folder_ + "/moved";
  std::string path;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    if (entry.path().string().find("-1.gwspool") != std::string::npos) path = entry.path().string();
  }
  ASSERT_FALSE(path.empty());
  // What cannot be opened as a file, whoever asks.
  fs::rename(path, moved);
  fs::create_directory(path);
  v1::Report report;
  EXPECT_FALSE(spool->read(report));
  EXPECT_EQ(spool->unread(), 3000U);
  fs::remove(path);
  fs::rename(moved, path);
  EXPECT_EQ(read_all(*spool), range(1, 3000));
  EXPECT_EQ(spool->take_lost(), 0U);
}

TEST_F(SpoolTest, ASpoolWithoutAReportIsRemoved) {
  create();
  ASSERT_EQ(files(), 1U);
  EXPECT_TRUE(Spool::take_over(folder_, "run").empty());
  EXPECT_EQ(files(), 0U);
}

class ReporterWithSpool : public SpoolTest {
 protected:
  ReporterOptions options(const std::string& daemon) const {
    ReporterOptions options = test::options_for(daemon);
    options.spool_directory = folder_;
    options.backlog_bytes = 64 << 10;  // some hundred reports
    return options;
  }
  static void submit(Reporter& reporter, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t step = first; step <= last; ++step) reporter.submit(test::record_of(step));
  }
  // An address where nobody listens.
  static int free_port() { return FakeDaemon().port(); }
};

TEST_F(ReporterWithSpool, DeliversInOrderWhatMemoryHadNoRoomForWhileTheDaemonWasAway) {
  const int port = free_port();
  test::on_ranks(1, [&](Collective& ranks) {
    Reporter reporter(options("127.0.0.1:" + std::to_string(port)), ranks);
    reporter.begin(test::shape_of());
    submit(reporter, 1, 5000);
    FakeDaemon daemon(port);
    ASSERT_TRUE(eventually([&] { return reporter.statistics().acknowledged == 5000; }));
    EXPECT_EQ(daemon.stored().size(), 5000U);
    const std::vector<std::uint64_t> order = daemon.order();
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
    EXPECT_TRUE(reporter.close());
    EXPECT_EQ(reporter.statistics().dropped, 0U);
  });
  EXPECT_EQ(files(), 0U) << "everything is delivered";
}

TEST_F(ReporterWithSpool, WhatIsLeftAtTheEndIsDeliveredByTheNextAttempt) {
  const int port = free_port();
  const std::string address = "127.0.0.1:" + std::to_string(port);
  std::string first_attempt;
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions o = options(address);
    o.close_timeout = std::chrono::milliseconds(100);
    Reporter reporter(o, ranks);
    first_attempt = reporter.attempt();
    reporter.begin(test::shape_of());
    submit(reporter, 1, 2000);
    EXPECT_FALSE(reporter.close());
    EXPECT_EQ(reporter.statistics().dropped, 0U) << "it is in the spool";
    EXPECT_EQ(reporter.statistics().pending, 2000U);
  });
  FakeDaemon daemon(port);
  test::on_ranks(1, [&](Collective& ranks) {
    Reporter reporter(options(address), ranks);
    reporter.begin(test::shape_of());
    EXPECT_TRUE(eventually([&] { return reporter.statistics().recovered == 2000; }));
    EXPECT_TRUE(reporter.close());
  });
  EXPECT_EQ(daemon.stored().size(), 2000U);
  EXPECT_EQ(files(), 0U);
}

TEST_F(ReporterWithSpool, AFullSpoolDropsTheOldestAndCountsThem) {
  const int port = free_port();
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions o = options("127.0.0.1:" + std::to_string(port));
    o.spool_bytes = kMiB;
    o.ring_bytes = 16 * kMiB;  // takes them all: what is dropped is dropped by the spool
    Reporter reporter(o, ranks);
    reporter.begin(test::shape_of());
    constexpr std::uint64_t kSteps = 20'000;
    submit(reporter, 1, kSteps);
    ASSERT_TRUE(eventually([&] { return reporter.statistics().dropped > 0; }));
    FakeDaemon daemon(port);
    ASSERT_TRUE(eventually([&] { return reporter.statistics().pending == 0; }));
    EXPECT_TRUE(daemon.stored().count(kSteps)) << "the newest step";
    EXPECT_FALSE(daemon.stored().count(1)) << "the oldest step";
    EXPECT_FALSE(reporter.close());
    const ReporterStatistics end = reporter.statistics();
    EXPECT_EQ(end.acknowledged + end.dropped, end.submitted);
    EXPECT_EQ(daemon.stored().size(), end.acknowledged);
  });
}

TEST_F(ReporterWithSpool, SaysWhatItDropsAlsoWhileRecordsComeFasterThanTheDiskTakesThem) {
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions o = options("127.0.0.1:" + std::to_string(free_port()));
    o.spool_bytes = kMiB;
    o.close_timeout = std::chrono::milliseconds(0);
    Reporter reporter(o, ranks);
    reporter.begin(test::shape_of());
    std::uint64_t step = 0;
    EXPECT_TRUE(eventually([&] {
      submit(reporter, step + 1, step + 500);
      step += 500;
      return reporter.statistics().dropped > 0;
    }));
  });
}

TEST_F(ReporterWithSpool, AFolderThatCannotBeUsedCostsOnlyTheSpool) {
  FakeDaemon daemon;
  test::on_ranks(1, [&](Collective& ranks) {
    ReporterOptions o = options(daemon.address());
    o.spool_directory = "/proc/no/such/folder";
    Reporter reporter(o, ranks);
    reporter.begin(test::shape_of());
    submit(reporter, 1, 100);
    EXPECT_TRUE(reporter.close());
  });
  EXPECT_EQ(daemon.stored().size(), 100U);
}

TEST_F(ReporterWithSpool, ARunThatIsRefusedForGoodLeavesNothingBehind) {
  FakeDaemon daemon;
  daemon.hello_status = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "no such run here");
  test::on_ranks(1, [&](Collective& ranks) {
    Reporter reporter(options(daemon.address()), ranks);
    reporter.begin(test::shape_of());
    submit(reporter, 1, 100);
    EXPECT_TRUE(eventually([&] { return reporter.statistics().dropped == 100; }));
    reporter.close();
  });
  EXPECT_EQ(files(), 0U);
}

}  // namespace
}  // namespace gradwarden
