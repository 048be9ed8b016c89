#include "daemon/store/salvage.h"

#include <sqlite3.h>

#include <algorithm>
#include <vector>

namespace gradwarden::store {
namespace {

// Rows are copied in ranges of ids, so that each range is all or nothing; one that fails is halved
// until the rows that cannot be read stand alone.
constexpr std::int64_t kRange = 4096;
// Where not even the highest id can be found, ids are tried up to what so many bytes could hold.
constexpr std::int64_t kLeastRowBytes = 16;
// but no further than this beyond the last row that was found, which takes seconds: a page that
// points to others loses some ten thousand small rows.
constexpr std::int64_t kLongestGap = 1 << 18;

// The last statement failed because the disk does not give back what was written to it.
bool cannot_read(const Connection& connection) {
  const int code = sqlite3_extended_errcode(connection.handle());
  return code == SQLITE_IOERR_READ || code == SQLITE_IOERR_SHORT_READ ||
         code == SQLITE_IOERR_CORRUPTFS;
}

class Copier {
 public:
  Copier(Connection& into, Recovery& recovery) : into_(into), recovery_(recovery) {}

  absl::Status table(const std::string& name) {
    const absl::StatusOr<std::string> columns = common_columns(name);
    // A table that the old version did not have, or whose schema is lost.
    if (!columns.ok() || (*columns + ",").find("id,") != 0) return absl::OkStatus();
    columns_ = *columns;
    lost_.clear();
    const std::int64_t end = highest_id(name);
    std::int64_t found = 0;  // about: the end of the last range that gave a row
    for (std::int64_t first = 1; first <= end; first += kRange) {
      if (!end_known_ && first - found > kLongestGap) break;
      const int before = sqlite3_total_changes(into_.handle());
      absl::Status status = range(name, first, std::min(end, first + kRange - 1));
      if (!status.ok()) return status;
      if (sqlite3_total_changes(into_.handle()) != before) found = first + kRange - 1;
    }
    return count_lost(name);
  }

  // A table without ids, of rows that belong to attempts.
  absl::Status of_attempts(const std::string& name, std::int64_t last_attempt) {
    const absl::StatusOr<std::string> columns = common_columns(name);
    if (!columns.ok() || columns->empty()) return absl::OkStatus();
    for (std::int64_t attempt = 1; attempt <= last_attempt; ++attempt) {
      std::string sql = "INSERT OR IGNORE INTO main.";
      sql.append(name).append("(").append(*columns).append(") SELECT ").append(*columns);
      sql.append(" FROM aside.").append(name).append(" WHERE attempt_id = ");
      sql.append(std::to_string(attempt));
      absl::Status status = into_.execute(sql);
      if (status.ok()) continue;
      if (!of_the_source(status)) return status;
      ++recovery_.lost_rows;
    }
    return absl::OkStatus();
  }

 private:
  // Reading failed, not writing: a damaged schema gives errors of every kind.
  bool of_the_source(const absl::Status& status) const {
    return cannot_read(into_) ||
           (!absl::IsResourceExhausted(status) && !absl::IsUnavailable(status) &&
            !absl::IsPermissionDenied(status));
  }

  absl::StatusOr<std::string> common_columns(const std::string& name) {
    absl::StatusOr<Statement> statement = into_.prepare(
        "SELECT group_concat(a.name) FROM pragma_table_info('" + name +
        "', 'main') a JOIN pragma_table_info('" + name + "', 'aside') b ON a.name = b.name");
    if (!statement.ok()) return statement.status();
    const absl::StatusOr<bool> row = statement->step();
    if (!row.ok()) return row.status();
    return *row ? statement->text(0) : std::string();
  }

  std::int64_t highest_id(const std::string& name) {
    const auto highest = into_.query_int64("SELECT max(id) FROM aside." + name);
    end_known_ = highest.ok();
    if (highest.ok()) return *highest;
    const auto pages = into_.query_int64("PRAGMA aside.page_count");
    const auto page_bytes = into_.query_int64("PRAGMA aside.page_size");
    return pages.ok() && page_bytes.ok() ? *pages * *page_bytes / kLeastRowBytes : 0;
  }

  // Where the end is not known, ids beyond the last row that was found are none that were lost.
  absl::Status count_lost(const std::string& name) {
    const auto last = into_.query_int64("SELECT max(id) FROM main." + name);
    if (!last.ok()) return last.status();
    const bool known = end_known_;
    recovery_.lost_rows += static_cast<std::uint64_t>(std::count_if(
        lost_.begin(), lost_.end(), [&](std::int64_t id) { return known || id <= *last; }));
    recovery_.end_known = recovery_.end_known && known;
    return absl::OkStatus();
  }

  absl::Status range(const std::string& name, std::int64_t first, std::int64_t last) {
    absl::Status status =
        into_.execute("INSERT OR IGNORE INTO main." + name + "(" + columns_ + ") SELECT " +
                      columns_ + " FROM aside." + name + " NOT INDEXED WHERE id BETWEEN " +
                      std::to_string(first) + " AND " + std::to_string(last));
    if (status.ok() || !of_the_source(status)) return status;
    if (first == last) {
      lost_.push_back(first);
      return absl::OkStatus();
    }
    const std::int64_t middle = first + (last - first) / 2;
    if (absl::Status lower = range(name, first, middle); !lower.ok()) return lower;
    return range(name, middle + 1, last);
  }

  Connection& into_;
  Recovery& recovery_;
  std::string columns_;
  std::vector<std::int64_t> lost_;  // ids of the table at hand that cannot be read
  bool end_known_ = true;
};

// Rows whose attempt or run is lost: nothing could ever show them, and their ids would be given to
// others.
absl::Status drop_orphans(Connection& into, Recovery& recovery) {
  const char* const of_attempts[] = {"segments",    "rollups", "events",
                                     "checkpoints", "flights", "expired"};
  std::vector<std::string> deletions = {
      "DELETE FROM main.attempts WHERE run_id NOT IN (SELECT id FROM main.runs)"};
  for (const char* table : of_attempts) {
    deletions.push_back(std::string("DELETE FROM main.") + table +
                        " WHERE attempt_id NOT IN (SELECT id FROM main.attempts)");
  }
  for (const std::string& deletion : deletions) {
    if (absl::Status status = into.execute(deletion); !status.ok()) return status;
    recovery.lost_rows += static_cast<std::uint64_t>(sqlite3_changes(into.handle()));
  }
  return absl::OkStatus();
}

absl::Status count_recovered(Connection& into, Recovery& recovery) {
  const std::pair<std::uint64_t*, const char*> counts[] = {
      {&recovery.attempts, "SELECT count(*) FROM main.attempts"},
      {&recovery.events, "SELECT count(*) FROM main.events"},
      {&recovery.segments, "SELECT count(*) FROM main.segments"},
      {&recovery.reports,
       "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM main.segments"}};
  for (const auto& [count, sql] : counts) {
    const auto found = into.query_int64(sql);
    if (!found.ok()) return found.status();
    *count = static_cast<std::uint64_t>(*found);
  }
  return absl::OkStatus();
}

absl::Status copy_all(Connection& into, Recovery& recovery) {
  Copier copier(into, recovery);
  for (const char* table : {"runs", "attempts", "events", "segments", "flights"}) {
    if (absl::Status status = copier.table(table); !status.ok()) return status;
  }
  const auto last_attempt = into.query_int64("SELECT max(id) FROM main.attempts");
  if (!last_attempt.ok()) return last_attempt.status();
  for (const char* table : {"rollups", "checkpoints", "expired"}) {
    absl::Status status = copier.of_attempts(table, *last_attempt);
    if (!status.ok()) return status;
  }
  if (absl::Status status = drop_orphans(into, recovery); !status.ok()) return status;
  return count_recovered(into, recovery);
}

}  // namespace

absl::Status salvage(const std::string& damaged, Connection& into, Recovery& recovery) {
  // The source stays as it was found, its log included.
  sqlite3_db_config(into.handle(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  // Only so does SQLite read a file that is shorter than its header says.
  if (absl::Status lenient = into.execute("PRAGMA writable_schema = ON"); !lenient.ok()) {
    return lenient;
  }
  absl::StatusOr<Statement> attach = into.prepare("ATTACH ? AS aside");
  if (!attach.ok()) return attach.status();
  attach->bind_text(1, damaged);
  absl::Status status = attach->run();
  // Each range is a transaction of its own: SQLite gives up a whole one when it meets damage.
  if (status.ok()) status = copy_all(into, recovery);
  if (!status.ok() && cannot_read(into)) status = absl::DataLossError(status.message());
  into.execute("PRAGMA writable_schema = OFF").IgnoreError();
  into.execute("DETACH aside").IgnoreError();
  return status;
}

}  // namespace gradwarden::store
