#include "daemon/store/sqlite_store.h"

#include <sqlite3.h>

#include <filesystem>
#include <utility>

#include "daemon/store/schema.h"
#include "daemon/store/sqlite_reader.h"
#include "proto/limits.h"

namespace gradwarden::store {
namespace {

// Segments are some KiB: larger pages mean fewer of them, fewer WAL frames and shallower overflow
// chains.
constexpr char kPageSize[] = "PRAGMA page_size = 16384";
// The write-ahead log is folded into the database, by a thread of its own, whenever it has grown to
// so many pages: seldom enough that pages which many commits touch are written once.
constexpr int kCheckpointPages = 2048;
// Under a load that never pauses that thread never catches up wholly, and the log would grow for
// ever: beyond this the committing thread folds in the little that is left, and the log begins
// anew.
constexpr int kMaxLogPages = 16384;
constexpr char kCache[] = "PRAGMA cache_size = -16384";  // KiB

// NORMAL hands each commit to the kernel, which keeps it when the process dies, and syncs at
// checkpoints only, so that power loss costs the newest commits and never the file. FULL syncs
// each.
const char* synchronous(Durability durability) {
  return durability == Durability::kPower ? "PRAGMA synchronous = FULL"
                                          : "PRAGMA synchronous = NORMAL";
}

absl::Status configure(Connection& connection, Durability durability) {
  for (const char* pragma :
       {kPageSize, "PRAGMA journal_mode = WAL", "PRAGMA wal_autocheckpoint = 0", kCache,
        "PRAGMA foreign_keys = OFF", "PRAGMA temp_store = MEMORY"}) {
    if (absl::Status status = connection.execute(pragma); !status.ok()) return status;
  }
  return connection.execute(synchronous(durability));
}

}  // namespace

SqliteStore::SqliteStore(std::string path, Connection connection)
    : path_(std::move(path)), connection_(std::move(connection)) {}

absl::StatusOr<std::unique_ptr<SqliteStore>> SqliteStore::open(const SqliteStoreOptions& options) {
  const std::string path = options.folder + "/" + kHistoryFile;
  absl::StatusOr<Connection> connection = Connection::open(path, Connection::Mode::kReadWrite);
  if (!connection.ok()) return connection.status();
  // The version first: nothing is written into a file that is not ours to write.
  const bool fresh = !std::filesystem::exists(path) || std::filesystem::file_size(path) == 0;
  if (!fresh) {
    if (absl::Status status = prepare_schema(*connection, path); !status.ok()) return status;
  }
  absl::Status status = configure(*connection, options.durability);
  if (status.ok() && fresh) status = prepare_schema(*connection, path);
  if (!status.ok()) return status;
  auto store = std::unique_ptr<SqliteStore>(new SqliteStore(path, *std::move(connection)));
  if (status = store->prepare_statements(); !status.ok()) return status;
  auto checkpointer = Checkpointer::open(path, synchronous(options.durability));
  if (!checkpointer.ok()) return checkpointer.status();
  store->checkpointer_ = *std::move(checkpointer);
  // Tells the length of the log after each commit.
  sqlite3_wal_hook(
      store->connection_.handle(),
      [](void* self, sqlite3*, const char*, int pages) {
        static_cast<SqliteStore*>(self)->log_pages_ = pages;
        return SQLITE_OK;
      },
      store.get());
  return store;
}

absl::Status SqliteStore::prepare_statements() {
  const std::pair<Statement*, const char*> all[] = {
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&rollback_, "ROLLBACK"},
      {&insert_run_, "INSERT INTO runs(id, name, created_ns) VALUES(?, ?, ?)"},
      {&insert_attempt_,
       "INSERT INTO attempts(id, run_id, name, ordinal, started_ns, hello) VALUES(?, ?, ?, ?, ?, "
       "?)"},
      {&insert_segment_,
       "INSERT INTO segments(attempt_id, rank, first_sequence, last_sequence, first_step, "
       "last_step,"
       " data) VALUES(?, ?, ?, ?, ?, ?, ?)"},
      {&upsert_event_,
       "INSERT INTO events(id, revision, run_id, attempt_id, open, data) VALUES(?, ?, ?, ?, ?, ?)"
       " ON CONFLICT(id) DO UPDATE SET revision = excluded.revision, open = excluded.open,"
       " data = excluded.data WHERE excluded.revision > revision"},
      {&update_attempt_,
       "UPDATE attempts SET last_report_ns = ?, reports = ?, step_reports = ?, first_step = ?,"
       " last_step = ?, grad_norm = ?, loss = ?, clipped = ?, skipped = ?, non_finite = ?,"
       " dropped = ?, finished = ?, state = ? WHERE id = ?"},
      {&insert_flight_,
       "INSERT OR IGNORE INTO flights(attempt_id, rank, sequence, step, data)"
       " VALUES(?, ?, ?, ?, ?)"},
      {&prune_flights_,
       "DELETE FROM flights WHERE attempt_id = ?1 AND rank = ?2 AND sequence <="
       " (SELECT sequence FROM flights WHERE attempt_id = ?1 AND rank = ?2"
       " ORDER BY sequence DESC LIMIT 1 OFFSET ?3)"},
      {&insert_checkpoint_, "INSERT OR IGNORE INTO checkpoints(attempt_id, step) VALUES(?, ?)"},
      {&upsert_rollup_,
       "INSERT INTO rollups VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
       " ON CONFLICT(attempt_id, level, bucket) DO UPDATE SET"
       " first_step = min(first_step, excluded.first_step),"
       " last_step = max(last_step, excluded.last_step),"
       " reports = reports + excluded.reports,"
       " finite_norms = finite_norms + excluded.finite_norms,"
       " norm_min = min(norm_min, excluded.norm_min),"
       " norm_max = max(norm_max, excluded.norm_max),"
       " norm_sum = norm_sum + excluded.norm_sum,"
       " loss_min = min(loss_min, excluded.loss_min),"
       " loss_max = max(loss_max, excluded.loss_max),"
       " clipped = clipped + excluded.clipped,"
       " skipped = skipped + excluded.skipped,"
       " non_finite = non_finite + excluded.non_finite"}};
  for (const auto& [statement, sql] : all) {
    absl::StatusOr<Statement> prepared = connection_.prepare(sql);
    if (!prepared.ok()) return prepared.status();
    *statement = *std::move(prepared);
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::commit(const std::vector<const CommitItem*>& items) {
  absl::Status status = begin_.run();
  if (status.ok()) status = write_items(items);
  if (status.ok()) status = commit_.run();
  // A failed COMMIT may leave the transaction open.
  if (!status.ok() && connection_.in_transaction()) rollback_.run().IgnoreError();
  if (status.ok()) bound_log();
  return status;
}

void SqliteStore::bound_log() {
  if (log_pages_ >= kMaxLogPages) {
    // Returns at once, to be tried again after the next commit, while the other thread is at it.
    connection_.execute("PRAGMA wal_checkpoint(PASSIVE)").IgnoreError();
  } else if (log_pages_ >= kCheckpointPages) {
    checkpointer_->request();
  }
}

absl::Status SqliteStore::write_items(const std::vector<const CommitItem*>& items) {
  // Several items of a group often touch one attempt and one bucket: each row is written once.
  std::map<std::int64_t, const AttemptProgress*> progress;
  std::map<BucketKey, Rollup> rollups;
  for (const CommitItem* item : items) {
    if (absl::Status status = write_begin(*item); !status.ok()) return status;
    if (absl::Status status = write_segments(*item); !status.ok()) return status;
    if (absl::Status status = write_flights(*item); !status.ok()) return status;
    for (const std::uint64_t step : item->checkpoints) {
      insert_checkpoint_.bind(1, item->attempt_id);
      insert_checkpoint_.bind(2, step);
      if (absl::Status status = insert_checkpoint_.run(); !status.ok()) return status;
    }
    for (const EventRow& event : item->events) {
      if (absl::Status status = write_event(event); !status.ok()) return status;
    }
    for (const RollupDelta& delta : item->rollups) {
      for (std::uint32_t level = 0; level < kRollupLevels; ++level) {
        const std::uint64_t bucket = delta.bucket / (kBucketSteps[level] / kBucketSteps[0]);
        merge(rollups[{item->attempt_id, level, bucket}], delta.rollup);
      }
    }
    if (item->progress) progress[item->attempt_id] = &*item->progress;
  }
  for (const auto& [key, rollup] : rollups) {
    if (absl::Status status = write_rollup(key, rollup); !status.ok()) return status;
  }
  for (const auto& [attempt_id, latest] : progress) {
    if (absl::Status status = write_progress(attempt_id, *latest); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::write_begin(const CommitItem& item) {
  if (item.new_run) {
    insert_run_.bind(1, item.new_run->id);
    insert_run_.bind_text(2, item.new_run->name);
    insert_run_.bind(3, item.new_run->created_ns);
    if (absl::Status status = insert_run_.run(); !status.ok()) return status;
  }
  if (item.new_attempt) {
    const AttemptRow& row = *item.new_attempt;
    insert_attempt_.bind(1, row.id);
    insert_attempt_.bind(2, row.run_id);
    insert_attempt_.bind_text(3, row.name);
    insert_attempt_.bind(4, row.ordinal);
    insert_attempt_.bind(5, row.started_ns);
    insert_attempt_.bind_blob(6, row.hello);
    if (absl::Status status = insert_attempt_.run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::write_segments(const CommitItem& item) {
  for (const Segment& segment : item.segments) {
    insert_segment_.bind(1, item.attempt_id);
    insert_segment_.bind(2, segment.rank);
    insert_segment_.bind(3, segment.first_sequence);
    insert_segment_.bind(4, segment.last_sequence);
    insert_segment_.bind(5, segment.first_step);
    insert_segment_.bind(6, segment.last_step);
    insert_segment_.bind_blob(7, segment.data);
    if (absl::Status status = insert_segment_.run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::write_flights(const CommitItem& item) {
  for (const Flight& flight : item.flights) {
    insert_flight_.bind(1, item.attempt_id);
    insert_flight_.bind(2, flight.rank);
    insert_flight_.bind(3, flight.sequence);
    insert_flight_.bind(4, flight.step);
    insert_flight_.bind_blob(5, flight.data);
    if (absl::Status status = insert_flight_.run(); !status.ok()) return status;
    prune_flights_.bind(1, item.attempt_id);
    prune_flights_.bind(2, flight.rank);
    prune_flights_.bind(3, std::uint64_t{limits::kFlightsKeptPerRank});
    if (absl::Status status = prune_flights_.run(); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status SqliteStore::write_event(const EventRow& event) {
  upsert_event_.bind(1, event.id);
  upsert_event_.bind(2, event.revision);
  upsert_event_.bind(3, event.run_id);
  upsert_event_.bind(4, event.attempt_id);
  upsert_event_.bind(5, event.open);
  upsert_event_.bind_blob(6, event.data);
  return upsert_event_.run();
}

absl::Status SqliteStore::write_progress(std::int64_t attempt_id, const AttemptProgress& progress) {
  update_attempt_.bind(1, progress.last_report_ns);
  update_attempt_.bind(2, progress.reports);
  update_attempt_.bind(3, progress.step_reports);
  update_attempt_.bind(4, progress.first_step);
  update_attempt_.bind(5, progress.last_step);
  update_attempt_.bind(6, progress.grad_norm);
  if (progress.loss) {
    update_attempt_.bind(7, *progress.loss);
  } else {
    update_attempt_.bind_null(7);
  }
  update_attempt_.bind(8, progress.clipped);
  update_attempt_.bind(9, progress.skipped);
  update_attempt_.bind(10, progress.non_finite);
  update_attempt_.bind(11, progress.dropped);
  update_attempt_.bind(12, progress.finished);
  update_attempt_.bind_blob(13, progress.state);
  update_attempt_.bind(14, attempt_id);
  return update_attempt_.run();
}

absl::Status SqliteStore::write_rollup(const BucketKey& key, const Rollup& rollup) {
  const auto& [attempt_id, level, bucket] = key;
  upsert_rollup_.bind(1, attempt_id);
  upsert_rollup_.bind(2, level);
  upsert_rollup_.bind(3, bucket);
  upsert_rollup_.bind(4, rollup.first_step);
  upsert_rollup_.bind(5, rollup.last_step);
  upsert_rollup_.bind(6, rollup.reports);
  upsert_rollup_.bind(7, rollup.finite_norms);
  upsert_rollup_.bind(8, rollup.norm_min);
  upsert_rollup_.bind(9, rollup.norm_max);
  upsert_rollup_.bind(10, rollup.norm_sum);
  upsert_rollup_.bind(11, rollup.loss_min);
  upsert_rollup_.bind(12, rollup.loss_max);
  upsert_rollup_.bind(13, rollup.clipped);
  upsert_rollup_.bind(14, rollup.skipped);
  upsert_rollup_.bind(15, rollup.non_finite);
  return upsert_rollup_.run();
}

absl::StatusOr<std::unique_ptr<StoreReader>> SqliteStore::open_reader() {
  return SqliteReader::open(path_);
}

}  // namespace gradwarden::store
