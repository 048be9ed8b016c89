// Damaged, truncated and foreign history files: the store always opens, what can be read is kept,
// and the damaged file lies beside it as it was found.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "daemon/store/recovery.h"
#include "daemon/store/schema.h"
#include "tests/unit/store_fixture.h"

namespace gradwarden::store {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kReports = 64;  // of a segment

class RecoveryTest : public StoreTest {
 protected:
  std::string path() const { return folder_ + "/history.sqlite"; }

  // An attempt with events and `segments` segments of about a KiB, all of it in the file itself.
  void fill(int segments) {
    CommitItem begin = begin_item();
    begin.events = {{1, 1, 1, 1, true, "event 1"}, {2, 1, 1, 1, false, "event 2"}};
    begin.checkpoints = {64};
    begin.progress = AttemptProgress{};
    begin.progress->state = "state";
    commit(begin);
    for (int i = 0; i < segments; ++i) {
      CommitItem item;
      item.attempt_id = 1;
      item.segments = {segment(kReports * i + 1, kReports * (i + 1), kReports * i + 1)};
      item.segments[0].data = std::string(1000, static_cast<char>('a' + i % 26));
      commit(item);
    }
    close();
    Connection connection = *Connection::open(path(), Connection::Mode::kReadWrite);
    ASSERT_TRUE(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").ok());
  }
  void close() {
    reader_.reset();
    store_.reset();
  }
  void recover() {
    recovery_ = {};
    auto store = open_or_recover({folder_, Durability::kProcess}, recovery_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    reader_ = *store_->open_reader();
  }
  std::string content(const std::string& file) const {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  // Overwrites bytes of the file.
  void damage(std::uint64_t at, std::size_t size, char with = '\xff') const {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file << std::string(size, with);
  }
  std::uint64_t stored_reports() const {
    std::uint64_t count = 0;
    const std::vector<Range> ranges = reader_->stored_sequences(1, 0).value();
    for (const auto& [first, last] : ranges) count += last - first + 1;
    return count;
  }

  Recovery recovery_;
};

TEST_F(RecoveryTest, ASoundHistoryIsOpenedAsItIs) {
  fill(10);
  recover();
  EXPECT_EQ(recovery_.damage, "");
  EXPECT_EQ(stored_reports(), 10 * kReports);
}

TEST_F(RecoveryTest, AFileThatIsNoDatabaseIsSetAsideAsItWas) {
  close();
  const std::string garbage = "no database at all " + std::string(5000, 'x');
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(path() + suffix);
  std::ofstream(path(), std::ios::trunc) << garbage;
  recover();
  EXPECT_NE(recovery_.damage, "");
  EXPECT_EQ(content(recovery_.set_aside), garbage);
  commit(begin_item());
  EXPECT_TRUE((*reader_->run("run")).has_value());
}

TEST_F(RecoveryTest, ATruncatedFileGivesBackWhatItStillHolds) {
  fill(1000);
  const auto size = std::filesystem::file_size(path());
  std::filesystem::resize_file(path(), size / 2);
  recover();
  EXPECT_THAT(recovery_.damage, HasSubstr("shorter"));
  ASSERT_EQ(recovery_.attempts, 1U);
  EXPECT_EQ(recovery_.events, 2U);
  EXPECT_EQ((**reader_->attempt(1, "a1")).progress.state, "state");
  EXPECT_THAT(*reader_->events(1, 0, 0, 10), ElementsAre("event 1", "event 2"));
  EXPECT_GT(recovery_.segments, 300U);
  EXPECT_LT(recovery_.segments, 1000U);
  EXPECT_FALSE(recovery_.end_known) << "how much was behind the end nobody can know";
  EXPECT_EQ(stored_reports(), recovery_.reports);
  EXPECT_EQ(recovery_.reports, recovery_.segments * kReports);
  EXPECT_EQ(std::filesystem::file_size(recovery_.set_aside), size / 2);
}

TEST_F(RecoveryTest, ASegmentThatCannotBeReadCostsOnlyItsNeighboursOnThePage) {
  fill(400);
  const std::string before = content(path());
  // The data of segment 200 and what stands around it.
  const std::size_t at =
      before.find(std::string(1000, static_cast<char>('a' + 199 % 26)), before.size() / 2);
  ASSERT_NE(at, std::string::npos);
  damage(at / 16384 * 16384, 16384);
  mark_damaged(folder_);
  recover();
  EXPECT_EQ(recovery_.attempts, 1U);
  EXPECT_GE(recovery_.segments, 370U);
  EXPECT_LT(recovery_.segments, 400U);
  EXPECT_EQ(recovery_.segments + recovery_.lost_rows, 400U);
  EXPECT_EQ(recovery_.events, 2U);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/history.damaged"));
  recover();
  EXPECT_EQ(recovery_.damage, "") << "the new file is sound";
}

// Where ids end is not known then: they are tried up to a bound, not as many as the file could
// hold.
TEST_F(RecoveryTest, ALastPageThatCannotBeReadCostsOnlyItsOwnRows) {
  fill(2000);
  const std::string before = content(path());
  const std::size_t at = before.rfind(std::string(1000, static_cast<char>('a' + 1999 % 26)));
  ASSERT_NE(at, std::string::npos);
  damage(at / 16384 * 16384, 16384);
  mark_damaged(folder_);
  recover();
  EXPECT_FALSE(recovery_.end_known);
  EXPECT_GE(recovery_.segments, 1970U);
  EXPECT_LT(recovery_.segments, 2000U);
  EXPECT_EQ(recovery_.events, 2U);
}

TEST_F(RecoveryTest, NothingOfALostAttemptIsLeftToBeTakenForAnothers) {
  fill(10);
  {
    Connection connection = *Connection::open(path(), Connection::Mode::kReadWrite);
    ASSERT_TRUE(connection.execute("DELETE FROM attempts").ok());
  }
  mark_damaged(folder_);
  recover();
  EXPECT_EQ(recovery_.segments, 0U);
  EXPECT_EQ(recovery_.events, 0U);
  EXPECT_EQ(recovery_.lost_rows, 10U + 2U);
}

TEST_F(RecoveryTest, FlippedBytesNeverKeepTheDaemonFromStarting) {
  fill(60);
  const std::string sound = content(path());
  std::mt19937_64 random(7);
  int set_aside = 0;
  for (int round = 0; round < 60; ++round) {
    close();
    for (const auto& file : std::filesystem::directory_iterator(folder_)) {
      std::filesystem::remove(file);
    }
    std::ofstream(path(), std::ios::binary) << sound;
    for (int i = 0; i < 8; ++i) {
      // Half of them in the first pages, where they hurt most.
      const std::uint64_t within = i % 2 == 0 ? 4 * 16384 : sound.size();
      damage(random() % within, 1 + random() % 64, static_cast<char>(random()));
    }
    recover();
    if (HasFatalFailure()) return;
    set_aside += recovery_.damage.empty() ? 0 : 1;
    CommitItem item;
    item.new_run = {1000, "after", 5};
    commit(item);
  }
  EXPECT_GT(set_aside, 0);
}

TEST_F(RecoveryTest, ADaemonKilledWhileItRecoversLosesNothing) {
  fill(20);
  namespace fs = std::filesystem;
  // Killed after the damaged file left its place and before the new one came.
  fs::create_directory(folder_ + "/rebuilding");
  fs::rename(path(), folder_ + "/rebuilding/history.sqlite");
  std::ofstream(folder_ + "/rebuilding/complete").flush();
  recover();
  EXPECT_EQ(recovery_.damage, "");
  EXPECT_EQ(stored_reports(), 20 * kReports);
  EXPECT_FALSE(fs::exists(folder_ + "/rebuilding"));
  // Killed before the new one was whole: what is there of it counts for nothing.
  close();
  fs::create_directory(folder_ + "/rebuilding");
  std::ofstream(folder_ + "/rebuilding/history.sqlite") << "half";
  mark_damaged(folder_);
  recover();
  EXPECT_EQ(stored_reports(), 20 * kReports);
  EXPECT_FALSE(fs::exists(folder_ + "/rebuilding"));
}

TEST_F(RecoveryTest, ANewerHistoryIsRefusedAndNotTouched) {
  fill(10);
  {
    Connection connection = *Connection::open(path(), Connection::Mode::kReadWrite);
    ASSERT_TRUE(connection.execute("PRAGMA user_version = 99").ok());
  }
  const std::string before = content(path());
  const auto store = open_or_recover({folder_, Durability::kProcess}, recovery_);
  EXPECT_TRUE(absl::IsUnimplemented(store.status())) << store.status();
  EXPECT_EQ(recovery_.damage, "");
  EXPECT_EQ(content(path()), before);
}

TEST_F(RecoveryTest, AHistoryOfVersionTwoIsTakenOverWithAllItHolds) {
  fill(10);
  {
    Connection connection = *Connection::open(path(), Connection::Mode::kReadWrite);
    ASSERT_TRUE(connection
                    .execute("DROP TABLE segment_times; DROP TABLE expired;"
                             "PRAGMA user_version = 2")
                    .ok());
  }
  recover();
  EXPECT_EQ(recovery_.damage, "");
  EXPECT_EQ(stored_reports(), 10 * kReports);
  close();
  Connection connection = *Connection::open(path(), Connection::Mode::kReadOnly);
  EXPECT_EQ(*connection.query_int64("PRAGMA user_version"), kSchemaVersion);
  EXPECT_EQ(*connection.query_int64("SELECT count(*) FROM expired"), 0);
}

}  // namespace
}  // namespace gradwarden::store
