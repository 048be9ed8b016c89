// Retention by age and by size, on a clock of the test's own.
#include <gmock/gmock.h>

#include "daemon/store/retention.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::store {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kSecondNs = 1'000'000'000;

class RetentionTest : public StoreTest {
 protected:
  RetentionTest() { commit(begin_item()); }

  // 100 reports each.
  void add(int segments, std::size_t bytes = 100) {
    for (int i = 0; i < segments; ++i, ++next_) {
      CommitItem item;
      item.attempt_id = 1;
      item.segments = {segment(100 * next_ + 1, 100 * (next_ + 1), 100 * next_ + 1)};
      item.segments[0].data = std::string(bytes, 'd');
      item.flights = {{0, 0, 100 * next_ + 50, 100 * next_ + 50, "flight"}};
      item.events = {{next_ + 1, 1, 1, 1, false, "event"}};
      commit(item);
    }
  }
  void limit(std::uint64_t seconds, std::uint64_t bytes, std::uint64_t protect = 10) {
    RetentionOptions options;
    options.limits = {seconds, bytes};
    options.protected_seconds = protect;
    retention_ = *Retention::open(
        store_->path(), options, [this] { return now_ns_; }, nullptr);
  }
  Pruned pass(std::uint64_t after_seconds) {
    now_ns_ += after_seconds * kSecondNs;
    const absl::StatusOr<Pruned> pruned = retention_->pass();
    EXPECT_TRUE(pruned.ok()) << pruned.status();
    return pruned.ok() ? *pruned : Pruned();
  }
  std::size_t segments() const {
    return (*reader_->segments(1, 0, std::uint64_t{1} << 40, {}, std::size_t{1} << 30)).size();
  }

  std::uint64_t next_ = 0;
  std::uint64_t now_ns_ = 1'700'000'000 * kSecondNs;
  std::unique_ptr<Retention> retention_;
};

TEST_F(RetentionTest, WithoutLimitsNothingIsDeleted) {
  limit(0, 0);
  add(5);
  pass(0);
  EXPECT_EQ(pass(1'000'000'000).segments, 0U);
  EXPECT_EQ(segments(), 5U);
}

TEST_F(RetentionTest, WhatIsTooOldIsDeletedAndTheRestStays) {
  limit(100, 0);
  add(200);
  pass(0);
  EXPECT_EQ(pass(60).segments, 0U);
  add(3);
  pass(30);
  const Pruned pruned = pass(20);
  EXPECT_EQ(pruned.segments, 200U);
  EXPECT_EQ(pruned.reports, 20'000U);
  EXPECT_EQ(segments(), 3U);
  EXPECT_EQ(pass(0).segments, 0U);
}

TEST_F(RetentionTest, RunsAttemptsAndEventsStay) {
  limit(100, 0);
  add(5);
  pass(0);
  pass(200);
  EXPECT_EQ(segments(), 0U);
  EXPECT_TRUE((*reader_->run("run")).has_value());
  EXPECT_EQ(reader_->attempts(1)->size(), 1U);
  EXPECT_EQ(reader_->event_counts(1)->events, 5U);
  EXPECT_FALSE((*reader_->flight(1, {}, {})).has_value()) << "recordings go with their reports";
}

TEST_F(RetentionTest, ADeletedReportThatComesAgainIsStillADuplicate) {
  limit(100, 0);
  add(5);
  pass(0);
  pass(200);
  add(2);
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 700)));
}

TEST_F(RetentionTest, WhatIsStoredAfterAllElseWasDeletedIsNotTakenForOld) {
  limit(100, 0);
  add(300);
  pass(0);
  EXPECT_EQ(pass(200).segments, 300U);
  add(5);
  EXPECT_EQ(pass(0).segments, 0U);
  EXPECT_EQ(pass(60).segments, 0U);
  EXPECT_EQ(segments(), 5U);
}

TEST_F(RetentionTest, EndsInTheMiddleOfALongPass) {
  limit(100, 0);
  add(5000);
  pass(0);
  now_ns_ += 200 * kSecondNs;
  // Its first transaction waits for this one, while the daemon begins to end.
  Connection busy = *Connection::open(store_->path(), Connection::Mode::kReadWrite);
  ASSERT_TRUE(busy.execute("BEGIN IMMEDIATE").ok());
  retention_->start();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  std::thread ending([this] { retention_.reset(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  ASSERT_TRUE(busy.execute("COMMIT").ok());
  ending.join();
  EXPECT_GT(segments(), 0U);
}

TEST_F(RetentionTest, TheOldestGoWhenTheHistoryIsTooLarge) {
  add(50, 20'000);
  limit(0, 600'000);
  pass(0);
  add(10, 20'000);
  const Pruned pruned = pass(60);
  EXPECT_GT(pruned.segments, 20U);
  EXPECT_LE(pruned.bytes_in_use, 600'000U);
  EXPECT_FALSE(pruned.above_limit);
  EXPECT_GE(segments(), 10U);
  EXPECT_EQ((*reader_->segments(1, 0, std::uint64_t{1} << 40, {}, std::size_t{1} << 30))
                .back()
                .last_sequence,
            6000U)
      << "the newest stay";
}

TEST_F(RetentionTest, TheRecentHistoryIsKeptWhateverTheSize) {
  limit(1, 1, 3600);
  add(20, 20'000);
  pass(0);
  const Pruned pruned = pass(3000);
  EXPECT_EQ(pruned.segments, 0U);
  EXPECT_TRUE(pruned.above_limit);
  EXPECT_EQ(segments(), 20U);
}

// Goal 7. A run a day, each with a megabyte of reports, into a history of four.
TEST_F(RetentionTest, AYearOfRunsStaysWithinTheSizeAndKeepsEachLastHour) {
  constexpr std::uint64_t kLimit = 4 << 20;
  constexpr std::uint64_t kPassSeconds = 3600;
  constexpr std::uint64_t kPassesADay = 86400 / kPassSeconds;
  constexpr std::size_t kSegmentBytes = 10'000;
  constexpr std::uint64_t kSegmentsAPass = 4;
  limit(400 * std::uint64_t{86400}, kLimit, 3600);
  std::uint64_t most = 0;
  std::uint64_t pruned = 0;
  for (std::int64_t day = 2; day <= 366; ++day) {
    for (std::uint64_t i = 0; i < kPassesADay; ++i) {
      CommitItem item;
      if (i == 0) {
        item.new_run = {day, "run" + std::to_string(day), now_ns_};
        item.new_attempt = {day, day, "a1", 1, now_ns_, "hello"};
      }
      item.attempt_id = day;
      for (std::uint64_t s = kSegmentsAPass * i; s < kSegmentsAPass * (i + 1); ++s) {
        item.segments.push_back(segment(100 * s + 1, 100 * (s + 1), 100 * s + 1));
        item.segments.back().data = std::string(kSegmentBytes, 'd');
      }
      const auto event = static_cast<std::uint64_t>(day) * kPassesADay + i;
      item.events = {{event, 1, day, day, false, "event"}};
      commit(item);
      const Pruned pass_of_it = pass(kPassSeconds);
      most = std::max(most, pass_of_it.bytes_in_use);
      pruned += pass_of_it.segments;
      EXPECT_FALSE(pass_of_it.above_limit);
    }
    // What the last passes wrote is there: it is younger than an hour.
    const auto last = reader_->segments(day, 100 * kSegmentsAPass * (kPassesADay - 1) + 1,
                                        std::uint64_t{1} << 40, {}, std::size_t{1} << 30);
    ASSERT_EQ(last->size(), kSegmentsAPass) << day;
  }
  EXPECT_LE(most, kLimit);
  EXPECT_LE(std::filesystem::file_size(store_->path()), kLimit + kLimit / 2);
  EXPECT_GT(pruned * kSegmentBytes, 80 * kLimit) << "most of a year's reports went";
  EXPECT_EQ(reader_->runs()->size(), 366U) << "the runs themselves stay";
  EXPECT_EQ(reader_->event_counts(200)->events, kPassesADay);
}

TEST_F(RetentionTest, NewLimitsHoldFromTheNextPass) {
  limit(0, 0);
  add(5);
  pass(0);
  retention_->set_limits({100, 0});
  EXPECT_EQ(pass(200).segments, 5U);
}

TEST_F(RetentionTest, CommitsGoOnWhileItDeletes) {
  limit(20, 0);
  add(500);
  pass(0);
  now_ns_ += 100 * kSecondNs;
  std::thread deleting([this] { EXPECT_EQ(retention_->pass()->segments, 500U); });
  add(100);
  deleting.join();
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 60'000)));
}

}  // namespace
}  // namespace gradwarden::store
