// The SQLite store: what is committed stays, whole or not at all, and is found again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>

#include "daemon/store/commit_writer.h"
#include "daemon/store/data_lock.h"
#include "daemon/store/sqlite.h"
#include "daemon/store/sqlite_store.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Store = StoreTest;

TEST_F(Store, FindsEverythingAgainAfterReopening) {
  CommitItem item = begin_item();
  item.segments = {segment(1, 64, 100), segment(65, 128, 164)};
  item.events = {{3, 1, 1, 1, true, "event 3"}};
  item.progress = AttemptProgress{.last_report_ns = 9,
                                  .reports = 128,
                                  .step_reports = 128,
                                  .first_step = 100,
                                  .last_step = 227,
                                  .grad_norm = 1.5,
                                  .loss = 2.5,
                                  .clipped = 3,
                                  .skipped = 4,
                                  .non_finite = 5,
                                  .dropped = 6,
                                  .finished = true,
                                  .state = std::string("\0state", 6)};
  commit(item);
  open();
  const HighestIds ids = *reader_->highest_ids();
  EXPECT_EQ(ids.run, 1);
  EXPECT_EQ(ids.event, 3u);
  ASSERT_TRUE((*reader_->run("run")).has_value());
  EXPECT_FALSE((*reader_->run("other")).has_value());
  const Attempt attempt = **reader_->attempt(1, "a1");
  EXPECT_EQ(attempt.row.hello, "hello");
  EXPECT_EQ(attempt.progress.reports, 128u);
  EXPECT_EQ(attempt.progress.grad_norm, 1.5);
  EXPECT_EQ(attempt.progress.loss, 2.5);
  EXPECT_EQ(attempt.progress.dropped, 6u);
  EXPECT_TRUE(attempt.progress.finished);
  EXPECT_EQ(attempt.progress.state, std::string("\0state", 6));
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 128)));
  EXPECT_THAT(*reader_->events(1, 0, 0, 10), ElementsAre("event 3"));
}

TEST_F(Store, JoinsSequencesAndLeavesGapsAndRanksApart) {
  CommitItem item = begin_item();
  item.segments = {segment(65, 128, 65), segment(1, 64, 1), segment(200, 210, 200)};
  Segment other = segment(1, 5, 1);
  other.rank = 7;
  item.segments.push_back(other);
  commit(item);
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 128), Range(200, 210)));
  EXPECT_THAT(*reader_->stored_sequences(1, 7), ElementsAre(Range(1, 5)));
  EXPECT_TRUE((*reader_->stored_sequences(2, 0)).empty());
}

TEST_F(Store, AFailedCommitLeavesNothingAndTheNextOneWorks) {
  CommitItem good = begin_item();
  good.segments = {segment(1, 64, 1)};
  commit(good);
  CommitItem half;
  half.attempt_id = 1;
  half.segments = {segment(65, 128, 65), segment(1, 64, 1)};  // the second is there already
  half.rollups = {{1, {}}};
  EXPECT_FALSE(store_->commit({&half}).ok());
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 64)));
  half.segments.pop_back();
  commit(half);
  EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 128)));
}

TEST_F(Store, ReadsSegmentsInOrderOfStepPieceByPiece) {
  CommitItem item = begin_item();
  item.segments = {segment(65, 128, 65), segment(1, 64, 1), segment(129, 192, 129)};
  commit(item);
  StoreReader::Position position;
  std::vector<std::uint64_t> steps;
  while (true) {
    const std::vector<Segment> piece = *reader_->segments(1, 30, 140, position, 1);
    if (piece.empty()) break;
    ASSERT_EQ(piece.size(), 1u);
    position = {piece[0].first_step, piece[0].id};
    steps.push_back(piece[0].first_step);
  }
  EXPECT_THAT(steps, ElementsAre(1, 65, 129));
  EXPECT_EQ((*reader_->segments(1, 65, 128, {}, 1 << 20)).size(), 1u);
  EXPECT_EQ((*reader_->segments(1, 193, 999, {}, 1 << 20)).size(), 0u);
}

TEST_F(Store, RollUpsAddUpOverCommitsAndLevelsAndKeepExtremes) {
  constexpr std::uint64_t kSteps = 10000;
  commit(begin_item());
  Rollup all;
  for (std::uint64_t first = 0; first < kSteps; first += 50) {
    CommitItem item;
    item.attempt_id = 1;
    for (std::uint64_t step = first; step < first + 50; ++step) {
      const RollupSample sample{step,      step == 7777 ? 99.0 : 1.0 + 1e-3 * (step % 10),
                                2.0,       step % 2 == 0,
                                step == 5, step == 5};
      if (item.rollups.empty() || item.rollups.back().bucket != step / 64) {
        item.rollups.push_back({step / 64, {}});
      }
      add(item.rollups.back().rollup, sample);
      add(all, sample);
    }
    commit(item);
  }
  for (std::uint32_t level = 0; level < kRollupLevels; ++level) {
    const std::vector<Rollup> rows = *reader_->rollups(1, level, 0, kSteps);
    EXPECT_EQ(rows.size(), (kSteps + kBucketSteps[level] - 1) / kBucketSteps[level]);
    Rollup joined;
    for (const Rollup& row : rows) merge(joined, row);
    EXPECT_EQ(joined.reports, kSteps);
    EXPECT_EQ(joined.clipped, all.clipped);
    EXPECT_EQ(joined.skipped, 1u);
    EXPECT_EQ(joined.norm_max, 99.0);
    EXPECT_EQ(joined.norm_min, 1.0);
    EXPECT_NEAR(joined.norm_sum, all.norm_sum, 1e-6);
    EXPECT_EQ(joined.first_step, 0u);
    EXPECT_EQ(joined.last_step, kSteps - 1);
    EXPECT_TRUE(joined.has_loss());
  }
  EXPECT_EQ((*reader_->rollups(1, 0, 64, 127)).size(), 1u);
}

TEST_F(Store, AnEventIsReplacedByItsLaterRevisionOnly) {
  CommitItem item = begin_item();
  item.events = {{1, 1, 1, 1, true, "begin"}};
  commit(item);
  EXPECT_THAT(*reader_->open_events(0, 0, 10), ElementsAre("begin"));
  CommitItem end;
  end.attempt_id = 1;
  end.events = {{1, 3, 1, 1, false, "end"}, {1, 2, 1, 1, true, "older"}, {2, 1, 1, 1, true, "two"}};
  commit(end);
  EXPECT_THAT(*reader_->events(1, 1, 0, 10), ElementsAre("end", "two"));
  EXPECT_THAT(*reader_->events(0, 0, 1, 10), ElementsAre("two"));
  EXPECT_THAT(*reader_->events(1, 0, 0, 1), ElementsAre("end"));
  EXPECT_THAT(*reader_->open_events(1, 1, 10), ElementsAre("two"));
  EXPECT_EQ(reader_->event_counts(1)->events, 2u);
  EXPECT_EQ(reader_->event_counts(1)->open, 1u);
}

TEST_F(Store, ANormThatIsNotFiniteIsKeptAsSuch) {
  CommitItem item = begin_item();
  item.progress = AttemptProgress{};
  commit(item);
  EXPECT_TRUE(std::isnan((**reader_->attempt(1, "a1")).progress.grad_norm));
  EXPECT_FALSE((**reader_->attempt(1, "a1")).progress.loss.has_value());
}

TEST_F(Store, RefusesAHistoryOfANewerVersionAndLeavesItAsItIs) {
  reader_.reset();
  store_.reset();
  const std::string path = folder_ + "/history.sqlite";
  {
    Connection connection = *Connection::open(path, Connection::Mode::kReadWrite);
    ASSERT_TRUE(connection.execute("PRAGMA user_version = 99").ok());
  }
  const auto before = std::filesystem::last_write_time(path);
  const auto store = SqliteStore::open({folder_, Durability::kProcess});
  EXPECT_TRUE(absl::IsUnimplemented(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("version 99"));
  EXPECT_EQ(std::filesystem::last_write_time(path), before);
}

TEST_F(Store, SaysWhatToDoAboutADamagedFile) {
  reader_.reset();
  store_.reset();
  const std::string path = folder_ + "/history.sqlite";
  std::filesystem::remove(path + "-wal");
  std::filesystem::remove(path + "-shm");
  std::ofstream(path, std::ios::trunc) << std::string(8192, 'x');
  const auto store = SqliteStore::open({folder_, Durability::kProcess});
  EXPECT_TRUE(absl::IsDataLoss(store.status())) << store.status();
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("move it aside"));
  // Somebody else's database is not touched either.
  std::filesystem::remove(path);
  Connection connection = *Connection::open(path, Connection::Mode::kReadWrite);
  ASSERT_TRUE(connection.execute("CREATE TABLE theirs(x)").ok());
  EXPECT_TRUE(absl::IsDataLoss(SqliteStore::open({folder_, Durability::kProcess}).status()));
}

TEST_F(Store, AFolderIsLockedUntilItsOwnerIsGone) {
  auto first = DataLock::acquire(folder_);
  ASSERT_TRUE(first.ok());
  const auto second = DataLock::acquire(folder_);
  EXPECT_TRUE(absl::IsFailedPrecondition(second.status()));
  { const DataLock released = *std::move(first); }
  EXPECT_TRUE(DataLock::acquire(folder_).ok());
  EXPECT_TRUE(absl::IsPermissionDenied(DataLock::acquire("/proc/nowhere").status()));
}

// A store that fails as often as it is told to.
class FlakyStore final : public store::Store {
 public:
  absl::Status commit(const std::vector<const CommitItem*>& items) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failures_ > 0) {
      --failures_;
      return absl::ResourceExhaustedError("disk full");
    }
    committed_ += items.size();
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<StoreReader>> open_reader() override {
    return absl::UnimplementedError("none");
  }
  void fail_next(int times) {
    const std::lock_guard<std::mutex> lock(mutex_);
    failures_ = times;
  }
  std::size_t committed() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return committed_;
  }

 private:
  std::mutex mutex_;
  int failures_ = 0;
  std::size_t committed_ = 0;
};

TEST(CommitWriter, CompletesInOrderAndOnlyAfterTheCommit) {
  FlakyStore store;
  std::vector<int> order;
  std::size_t committed_at_done = 0;
  {
    CommitWriter writer(store, {}, {});
    for (int i = 0; i < 1000; ++i) {
      writer.submit(std::make_unique<CommitItem>(), [&, i] {
        order.push_back(i);
        if (i == 999) committed_at_done = store.committed();
      });
    }
    EXPECT_TRUE(writer.stop(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
  }
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(committed_at_done, 1000u);
}

TEST(CommitWriter, TriesAFailedCommitAgainAndAcknowledgesNothingMeanwhile) {
  FlakyStore store;
  store.fail_next(3);
  int failures = 0;
  int recoveries = 0;
  std::size_t failures_at_done = 0;
  CommitWriter writer(store,
                      {.max_group_items = 512, .retry_interval = std::chrono::milliseconds(1)},
                      {.on_failure = [&](const absl::Status&) { ++failures; },
                       .on_recovery = [&] { ++recoveries; }});
  writer.submit(std::make_unique<CommitItem>(),
                [&] { failures_at_done = static_cast<std::size_t>(failures); });
  EXPECT_TRUE(writer.stop(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
  EXPECT_EQ(failures_at_done, 3u);
  EXPECT_EQ(recoveries, 1);
  EXPECT_EQ(store.committed(), 1u);
}

TEST(CommitWriter, TellsOfADelayOnceAlsoThoseWhoWaitBehindIt) {
  FlakyStore store;
  store.fail_next(1'000'000'000);
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> calls;
  const auto call = [&](const std::string& name) {
    return [&, name] {
      const std::lock_guard<std::mutex> lock(mutex);
      calls.push_back(name);
      changed.notify_all();
    };
  };
  const auto wait_for = [&](std::size_t count) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait_for(lock, std::chrono::seconds(30), [&] { return calls.size() >= count; });
  };
  CommitWriter writer(store, {.retry_interval = std::chrono::milliseconds(1)}, {});
  writer.submit(std::make_unique<CommitItem>(), call("first done"), call("first delayed"));
  wait_for(1);
  writer.submit(std::make_unique<CommitItem>(), call("second done"), call("second delayed"));
  wait_for(2);
  store.fail_next(0);
  wait_for(4);
  EXPECT_EQ(calls, (std::vector<std::string>{"first delayed", "second delayed", "first done",
                                             "second done"}));
  EXPECT_TRUE(writer.stop(std::chrono::steady_clock::now() + std::chrono::seconds(30)));
}

TEST(CommitWriter, GivesUpAtTheDeadlineWithoutAcknowledging) {
  FlakyStore store;
  store.fail_next(1'000'000'000);
  bool done = false;
  CommitWriter writer(store, {}, {});
  writer.submit(std::make_unique<CommitItem>(), [&] { done = true; });
  EXPECT_FALSE(writer.stop(std::chrono::steady_clock::now()));
  EXPECT_FALSE(done);
}

}  // namespace
}  // namespace gradwarden::store
