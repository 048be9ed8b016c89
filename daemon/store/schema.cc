#include "daemon/store/schema.h"

namespace gradwarden::store {
namespace {

// Steps, sequences and times fit int64: the wire's limits keep them below 2^63.
constexpr char kTables[] = R"sql(
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
  hello BLOB NOT NULL,             -- gradwarden.v1.Hello
  last_report_ns INTEGER NOT NULL DEFAULT 0,
  reports INTEGER NOT NULL DEFAULT 0,
  step_reports INTEGER NOT NULL DEFAULT 0,
  first_step INTEGER NOT NULL DEFAULT 0,
  last_step INTEGER NOT NULL DEFAULT 0,
  grad_norm REAL,                  -- NULL: not finite or none
  loss REAL,
  clipped INTEGER NOT NULL DEFAULT 0,
  skipped INTEGER NOT NULL DEFAULT 0,
  non_finite INTEGER NOT NULL DEFAULT 0,
  dropped INTEGER NOT NULL DEFAULT 0,
  finished INTEGER NOT NULL DEFAULT 0,
  state BLOB,                      -- of the detector, versioned by it
  UNIQUE(run_id, name));
CREATE TABLE segments(
  id INTEGER PRIMARY KEY,
  attempt_id INTEGER NOT NULL REFERENCES attempts(id),
  rank INTEGER NOT NULL,
  first_sequence INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  first_step INTEGER NOT NULL,
  last_step INTEGER NOT NULL,
  data BLOB NOT NULL);             -- gradwarden.v1.ReportBatch
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
  data BLOB NOT NULL);             -- gradwarden.v1.Event
CREATE INDEX events_by_run ON events(run_id, id);
CREATE INDEX events_open ON events(run_id, id) WHERE open;
)sql";

// What version 2 added: in new files after the above, in files of version 1 by themselves.
constexpr char kTablesOfVersion2[] = R"sql(
CREATE TABLE checkpoints(
  attempt_id INTEGER NOT NULL,
  step INTEGER NOT NULL,
  PRIMARY KEY(attempt_id, step)) WITHOUT ROWID;
CREATE TABLE flights(
  id INTEGER PRIMARY KEY,
  attempt_id INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  step INTEGER NOT NULL,
  data BLOB NOT NULL);             -- gradwarden.v1.FlightRecording
CREATE UNIQUE INDEX flights_by_sequence ON flights(attempt_id, rank, sequence);
CREATE INDEX flights_by_step ON flights(attempt_id, step, rank);
)sql";

// What version 3 added, for retention. The time at which the segments up to an id were there, noted
// now and then; and of each rank the last sequence that was stored and deleted since.
constexpr char kTablesOfVersion3[] = R"sql(
CREATE TABLE segment_times(
  segment_id INTEGER PRIMARY KEY,
  time_ns INTEGER NOT NULL);
CREATE TABLE expired(
  attempt_id INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  last_sequence INTEGER NOT NULL,
  PRIMARY KEY(attempt_id, rank)) WITHOUT ROWID;
)sql";

// `tables` begins no transaction. All of it or nothing.
absl::Status write_schema(Connection& connection, const std::string& tables) {
  absl::Status status = connection.execute("BEGIN IMMEDIATE;" + tables);
  if (status.ok()) {
    status = connection.execute("PRAGMA user_version = " + std::to_string(kSchemaVersion));
  }
  if (status.ok()) status = connection.execute("COMMIT");
  if (!status.ok() && connection.in_transaction()) connection.execute("ROLLBACK").IgnoreError();
  return status;
}

}  // namespace

absl::Status prepare_schema(Connection& connection, const std::string& path) {
  const absl::StatusOr<std::int64_t> version = connection.query_int64("PRAGMA user_version");
  if (!version.ok()) {
    return absl::DataLossError(path + " is damaged or no history file (" +
                               std::string(version.status().message()) +
                               "); move it aside to start with an empty history");
  }
  if (*version == kSchemaVersion) return absl::OkStatus();
  if (*version == 1) {
    return write_schema(connection, std::string(kTablesOfVersion2) + kTablesOfVersion3);
  }
  if (*version == 2) return write_schema(connection, kTablesOfVersion3);
  if (*version > kSchemaVersion) {
    return absl::UnimplementedError(path + " is of format version " + std::to_string(*version) +
                                    ", this gradwardend reads up to " +
                                    std::to_string(kSchemaVersion) +
                                    "; use a newer gradwardend or another --data-dir");
  }
  const absl::StatusOr<std::int64_t> tables =
      connection.query_int64("SELECT count(*) FROM sqlite_schema");
  if (!tables.ok() || *tables != 0) {
    return absl::DataLossError(path +
                               " is no gradwarden history file; move it aside to start with an "
                               "empty history");
  }
  return write_schema(connection, std::string(kTables) + kTablesOfVersion2 + kTablesOfVersion3);
}

}  // namespace gradwarden::store
