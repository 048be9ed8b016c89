// Checkpoints and flight recordings in the store, and a file of the version that had neither.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "daemon/store/sqlite.h"
#include "proto/limits.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::store {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

using StoreRecords = StoreTest;

TEST_F(StoreRecords, ACheckpointCountsOnceHoweverOftenItIsReported) {
  CommitItem item = begin_item();
  item.checkpoints = {100, 200, 100};
  commit(item);
  CommitItem again;
  again.attempt_id = 1;
  again.checkpoints = {300, 200};
  commit(again);
  open();
  EXPECT_THAT(*reader_->checkpoints(1, 64), ElementsAre(100, 200, 300));
  EXPECT_THAT(*reader_->checkpoints(1, 2), ElementsAre(200, 300));
  EXPECT_THAT(*reader_->checkpoints(2, 64), ElementsAre());
}

TEST_F(StoreRecords, AFlightIsFoundByTheStepsThatItHolds) {
  CommitItem item = begin_item();
  item.flights = {
      {0, 0, 10, 100, "r0 s100"}, {0, 1, 3, 100, "r1 s100"}, {0, 0, 99, 300, "r0 s300"}};
  commit(item);
  commit([&] {
    CommitItem again;
    again.attempt_id = 1;
    again.flights = {{0, 0, 10, 100, "the same report once more"}};
    return again;
  }());
  const auto data = [&](std::optional<std::uint64_t> step, std::optional<std::uint32_t> rank) {
    const auto flight = reader_->flight(1, step, rank);
    EXPECT_TRUE(flight.ok()) << flight.status();
    return *flight ? (**flight).data : std::string("none");
  };
  EXPECT_EQ(data({}, {}), "r0 s300");
  EXPECT_EQ(data({}, 1), "r1 s100");
  EXPECT_EQ(data({}, 2), "none");
  EXPECT_EQ(data(100, {}), "r0 s100");
  EXPECT_EQ(data(100, 1), "r1 s100");
  EXPECT_EQ(data(37, {}), "r0 s100") << "the oldest of its 64 steps";
  EXPECT_EQ(data(36, {}), "none");
  EXPECT_EQ(data(101, {}), "none");
  EXPECT_EQ(data(250, 0), "r0 s300");
  EXPECT_THAT(*reader_->flight_ranks(1, 100, 64), ElementsAre(0, 1));
  EXPECT_THAT(*reader_->flight_ranks(1, 100, 1), ElementsAre(0));
}

TEST_F(StoreRecords, OfEachRankOnlyTheNewestFlightsAreKept) {
  commit(begin_item());
  for (std::uint64_t i = 1; i <= 40; ++i) {
    CommitItem item;
    item.attempt_id = 1;
    item.flights = {{0, 0, i, 100 * i, "r0"}};
    if (i <= 3) item.flights.push_back({0, 7, i, 100 * i, "r7"});
    commit(item);
  }
  std::uint64_t kept = 0;
  for (std::uint64_t i = 1; i <= 40; ++i) {
    const bool there = reader_->flight(1, 100 * i, 0)->has_value();
    EXPECT_EQ(there, i > 40 - limits::kFlightsKeptPerRank) << i;
    kept += there ? 1 : 0;
  }
  EXPECT_EQ(kept, limits::kFlightsKeptPerRank);
  EXPECT_EQ((**reader_->flight(1, 100, 7)).data, "r7");
}

// As the first version wrote it.
constexpr char kVersion1[] = R"sql(
BEGIN IMMEDIATE;
CREATE TABLE runs(
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  created_ns INTEGER NOT NULL);
CREATE TABLE attempts(
  id INTEGER PRIMARY KEY,
  run_id INTEGER NOT NULL REFERENCES runs(id),
  name TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  started_ns INTEGER NOT NULL,
  hello BLOB NOT NULL,
  last_report_ns INTEGER NOT NULL DEFAULT 0,
  reports INTEGER NOT NULL DEFAULT 0,
  step_reports INTEGER NOT NULL DEFAULT 0,
  first_step INTEGER NOT NULL DEFAULT 0,
  last_step INTEGER NOT NULL DEFAULT 0,
  grad_norm REAL,
  loss REAL,
  clipped INTEGER NOT NULL DEFAULT 0,
  skipped INTEGER NOT NULL DEFAULT 0,
  non_finite INTEGER NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0,
  finished INTEGER NOT NULL DEFAULT 0,
  state BLOB,
  UNIQUE(run_id, name));
CREATE TABLE segments(
  id INTEGER PRIMARY KEY,
  attempt_id INTEGER NOT NULL REFERENCES attempts(id),
  rank INTEGER NOT NULL,
  first_sequence INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  first_step INTEGER NOT NULL,
  last_step INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE UNIQUE INDEX segments_by_sequence
  ON segments(attempt_id, rank, first_sequence, last_sequence);
CREATE INDEX segments_by_step ON segments(attempt_id, rank, first_step, id, last_step);
CREATE TABLE rollups(
  attempt_id INTEGER NOT NULL,
  level INTEGER NOT NULL,
  bucket INTEGER NOT NULL,
  first_step INTEGER NOT NULL,
  last_step INTEGER NOT NULL,
  reports INTEGER NOT NULL,
  finite_norms INTEGER NOT NULL,
  norm_min REAL NOT NULL,
  norm_max REAL NOT NULL,
  norm_sum REAL NOT NULL,
  loss_min REAL NOT NULL,
  loss_max REAL NOT NULL,
  clipped INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  non_finite INTEGER NOT NULL,
  PRIMARY KEY(attempt_id, level, bucket)) WITHOUT ROWID;
CREATE TABLE events(
  id INTEGER PRIMARY KEY,
  revision INTEGER NOT NULL,
  run_id INTEGER NOT NULL,
  attempt_id INTEGER NOT NULL,
  open INTEGER NOT NULL,
  data BLOB NOT NULL);
CREATE INDEX events_by_run ON events(run_id, id);
CREATE INDEX events_open ON events(run_id, id) WHERE open;
INSERT INTO runs VALUES(1, 'run', 5);
INSERT INTO attempts(id, run_id, name, ordinal, started_ns, hello, reports, last_step, state)
  VALUES(1, 1, 'a1', 1, 6, x'68656c6c6f', 64, 64, x'0102');
INSERT INTO segments VALUES(1, 1, 0, 1, 64, 1, 64, x'64617461');
INSERT INTO events VALUES(3, 1, 1, 1, 1, x'6576656e74');
PRAGMA user_version = 1;
COMMIT;
)sql";

TEST_F(StoreRecords, AFileOfTheFirstVersionKeepsAllItHoldsAndGainsWhatIsNew) {
  reader_.reset();
  store_.reset();
  for (const char* suffix : {"", "-wal", "-shm"}) {
    std::filesystem::remove(folder_ + "/history.sqlite" + suffix);
  }
  {
    Connection old = *Connection::open(folder_ + "/history.sqlite", Connection::Mode::kReadWrite);
    ASSERT_TRUE(old.execute("PRAGMA journal_mode = WAL").ok());
    const absl::Status status = old.execute(kVersion1);
    ASSERT_TRUE(status.ok()) << status;
  }
  for (int start = 0; start < 2; ++start) {  // the second one finds it done
    open();
    EXPECT_EQ((**reader_->attempt(1, "a1")).progress.reports, 64u);
    EXPECT_EQ((**reader_->attempt(1, "a1")).progress.state, std::string("\x01\x02"));
    EXPECT_THAT(*reader_->stored_sequences(1, 0), ElementsAre(Range(1, 64)));
    EXPECT_EQ((*reader_->segments(1, 1, 64, {}, 1 << 20))[0].data, "data");
    EXPECT_THAT(*reader_->events(1, 0, 0, 10), ElementsAre("event"));
    CommitItem item;
    item.attempt_id = 1;
    item.checkpoints = {64};
    item.flights = {{0, 0, 64, 64, "flight"}};
    commit(item);
  }
  EXPECT_THAT(*reader_->checkpoints(1, 64), ElementsAre(64));
  EXPECT_EQ((**reader_->flight(1, {}, {})).data, "flight");
}

}  // namespace
}  // namespace gradwarden::store
