#include "daemon/store/sqlite_reader.h"

#include <algorithm>
#include <utility>

#include "proto/limits.h"

namespace gradwarden::store {
namespace {

constexpr std::uint64_t kLargest = std::numeric_limits<std::int64_t>::max();

constexpr char kAttemptColumns[] =
    "SELECT id, run_id, name, ordinal, started_ns, hello, last_report_ns, reports, step_reports,"
    " first_step, last_step, grad_norm, loss, clipped, skipped, non_finite, dropped, finished";

Attempt read_attempt(const Statement& row) {
  Attempt attempt;
  attempt.row.id = row.int64(0);
  attempt.row.run_id = row.int64(1);
  attempt.row.name = row.text(2);
  attempt.row.ordinal = static_cast<std::uint32_t>(row.int64(3));
  attempt.row.started_ns = row.uint64(4);
  attempt.row.hello = row.blob(5);
  AttemptProgress& progress = attempt.progress;
  progress.last_report_ns = row.uint64(6);
  progress.reports = row.uint64(7);
  progress.step_reports = row.uint64(8);
  progress.first_step = row.uint64(9);
  progress.last_step = row.uint64(10);
  progress.grad_norm = row.real(11);
  if (!row.is_null(12)) progress.loss = row.real(12);
  progress.clipped = row.uint64(13);
  progress.skipped = row.uint64(14);
  progress.non_finite = row.uint64(15);
  progress.dropped = row.uint64(16);
  progress.finished = row.int64(17) != 0;
  return attempt;
}

RunRow read_run(const Statement& row) { return {row.int64(0), row.text(1), row.uint64(2)}; }

// Steps through all rows of a bound statement.
template <typename OnRow>
absl::Status each_row(Statement& statement, OnRow on_row) {
  const ResetOnExit reset(statement);
  while (true) {
    const absl::StatusOr<bool> row = statement.step();
    if (!row.ok()) return row.status();
    if (!*row) return absl::OkStatus();
    if (!on_row(statement)) return absl::OkStatus();
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreReader>> SqliteReader::open(const std::string& path) {
  absl::StatusOr<Connection> connection = Connection::open(path, Connection::Mode::kReadOnly);
  if (!connection.ok()) return connection.status();
  return std::unique_ptr<StoreReader>(new SqliteReader(*std::move(connection)));
}

absl::StatusOr<Statement*> SqliteReader::statement(const char* sql) {
  auto found = statements_.find(sql);
  if (found == statements_.end()) {
    absl::StatusOr<Statement> prepared = connection_.prepare(sql);
    if (!prepared.ok()) return prepared.status();
    found = statements_.emplace(sql, *std::move(prepared)).first;
  }
  return &found->second;
}

absl::StatusOr<HighestIds> SqliteReader::highest_ids() {
  static constexpr char kSql[] =
      "SELECT (SELECT coalesce(max(id), 0) FROM runs), (SELECT coalesce(max(id), 0) FROM attempts),"
      " (SELECT coalesce(max(id), 0) FROM events)";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  HighestIds ids;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    ids = {row.int64(0), row.int64(1), row.uint64(2)};
    return true;
  });
  if (!status.ok()) return status;
  return ids;
}

absl::StatusOr<std::vector<RunRow>> SqliteReader::runs() {
  static constexpr char kSql[] = "SELECT id, name, created_ns FROM runs ORDER BY id";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  std::vector<RunRow> rows;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back(read_run(row));
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<std::optional<RunRow>> SqliteReader::run(std::string_view name) {
  static constexpr char kSql[] = "SELECT id, name, created_ns FROM runs WHERE name = ?";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind_text(1, name);
  std::optional<RunRow> found;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    found = read_run(row);
    return true;
  });
  if (!status.ok()) return status;
  return found;
}

absl::StatusOr<std::vector<Attempt>> SqliteReader::attempts(std::int64_t run_id) {
  static const std::string kSql =
      std::string(kAttemptColumns) + " FROM attempts WHERE run_id = ? ORDER BY started_ns, ordinal";
  const absl::StatusOr<Statement*> query = statement(kSql.c_str());
  if (!query.ok()) return query.status();
  (*query)->bind(1, run_id);
  std::vector<Attempt> rows;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back(read_attempt(row));
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<std::optional<Attempt>> SqliteReader::attempt(std::int64_t run_id,
                                                             std::string_view name) {
  static const std::string kSql =
      std::string(kAttemptColumns) + ", state FROM attempts WHERE run_id = ? AND name = ?";
  const absl::StatusOr<Statement*> query = statement(kSql.c_str());
  if (!query.ok()) return query.status();
  (*query)->bind(1, run_id);
  (*query)->bind_text(2, name);
  std::optional<Attempt> found;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    found = read_attempt(row);
    found->progress.state = row.blob(18);
    return true;
  });
  if (!status.ok()) return status;
  return found;
}

absl::StatusOr<std::vector<Range>> SqliteReader::stored_sequences(std::int64_t attempt_id,
                                                                  std::uint32_t rank) {
  // What retention deleted was stored too; so far back everything counts as that.
  static constexpr char kSql[] =
      "SELECT 1, last_sequence FROM expired WHERE attempt_id = ?1 AND rank = ?2 UNION ALL"
      " SELECT first_sequence, last_sequence FROM segments WHERE attempt_id = ?1 AND rank = ?2"
      " ORDER BY 1";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, rank);
  std::vector<Range> ranges;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    const std::uint64_t first = row.uint64(0);
    const std::uint64_t last = row.uint64(1);
    if (!ranges.empty() && first <= ranges.back().second + 1) {
      ranges.back().second = std::max(ranges.back().second, last);
    } else {
      ranges.emplace_back(first, last);
    }
    return true;
  });
  if (!status.ok()) return status;
  return ranges;
}

absl::StatusOr<std::vector<Segment>> SqliteReader::segments(std::int64_t attempt_id,
                                                            std::uint64_t first, std::uint64_t last,
                                                            Position after, std::size_t max_bytes) {
  static constexpr char kSql[] =
      "SELECT id, rank, first_sequence, last_sequence, first_step, last_step, data FROM segments"
      " WHERE attempt_id = ? AND rank = 0 AND (first_step, id) > (?, ?) AND first_step <= ?"
      " AND last_step >= ? ORDER BY first_step, id";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, after.first_step);
  (*query)->bind(3, after.id);
  (*query)->bind(4, std::min(last, kLargest));
  (*query)->bind(5, std::min(first, kLargest));
  std::vector<Segment> rows;
  std::size_t bytes = 0;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back({row.int64(0), static_cast<std::uint32_t>(row.int64(1)), row.uint64(2),
                    row.uint64(3), row.uint64(4), row.uint64(5), row.blob(6)});
    bytes += rows.back().data.size();
    return bytes < max_bytes;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<std::vector<Rollup>> SqliteReader::rollups(std::int64_t attempt_id,
                                                          std::uint32_t level, std::uint64_t first,
                                                          std::uint64_t last) {
  static constexpr char kSql[] =
      "SELECT first_step, last_step, reports, finite_norms, norm_min, norm_max, norm_sum, loss_min,"
      " loss_max, clipped, skipped, non_finite FROM rollups"
      " WHERE attempt_id = ? AND level = ? AND bucket BETWEEN ? AND ? ORDER BY bucket";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, level);
  (*query)->bind(3, first / kBucketSteps[level]);
  (*query)->bind(4, std::min(last, kLargest) / kBucketSteps[level]);
  std::vector<Rollup> rows;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back({row.uint64(0), row.uint64(1), row.uint64(2), row.uint64(3), row.real(4),
                    row.real(5), row.real(6), row.real(7), row.real(8), row.uint64(9),
                    row.uint64(10), row.uint64(11)});
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<std::optional<Flight>> SqliteReader::flight(std::int64_t attempt_id,
                                                           std::optional<std::uint64_t> step,
                                                           std::optional<std::uint32_t> rank) {
  static constexpr char kLast[] =
      "SELECT attempt_id, rank, sequence, step, data FROM flights"
      " WHERE attempt_id = ?1 AND (?2 < 0 OR rank = ?2) ORDER BY step DESC, rank LIMIT 1";
  static constexpr char kNearest[] =
      "SELECT attempt_id, rank, sequence, step, data FROM flights"
      " WHERE attempt_id = ?1 AND (?2 < 0 OR rank = ?2) AND step BETWEEN ?3 AND ?4"
      " ORDER BY step, rank LIMIT 1";
  const absl::StatusOr<Statement*> query = statement(step ? kNearest : kLast);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, rank ? std::int64_t{*rank} : std::int64_t{-1});
  if (step) {
    (*query)->bind(3, *step);
    (*query)->bind(4, *step + limits::kMaxFlightSteps - 1);
  }
  std::optional<Flight> found;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    found = {row.int64(0), static_cast<std::uint32_t>(row.int64(1)), row.uint64(2), row.uint64(3),
             row.blob(4)};
    return true;
  });
  if (!status.ok()) return status;
  return found;
}

absl::StatusOr<std::vector<std::uint32_t>> SqliteReader::flight_ranks(std::int64_t attempt_id,
                                                                      std::uint64_t step,
                                                                      std::uint32_t limit) {
  static constexpr char kSql[] =
      "SELECT DISTINCT rank FROM flights WHERE attempt_id = ? AND step = ? ORDER BY rank LIMIT ?";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, step);
  (*query)->bind(3, limit);
  std::vector<std::uint32_t> ranks;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    ranks.push_back(static_cast<std::uint32_t>(row.int64(0)));
    return true;
  });
  if (!status.ok()) return status;
  return ranks;
}

absl::StatusOr<std::vector<std::uint64_t>> SqliteReader::checkpoints(std::int64_t attempt_id,
                                                                     std::uint32_t limit) {
  static constexpr char kSql[] =
      "SELECT step FROM checkpoints WHERE attempt_id = ? ORDER BY step DESC LIMIT ?";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, attempt_id);
  (*query)->bind(2, limit);
  std::vector<std::uint64_t> steps;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    steps.push_back(row.uint64(0));
    return true;
  });
  if (!status.ok()) return status;
  std::reverse(steps.begin(), steps.end());
  return steps;
}

absl::StatusOr<std::vector<std::string>> SqliteReader::events(std::int64_t run_id,
                                                              std::int64_t attempt_id,
                                                              std::uint64_t after_id,
                                                              std::uint32_t limit) {
  static constexpr char kOfRun[] =
      "SELECT data FROM events WHERE run_id = ?1 AND id > ?3 AND (?2 = 0 OR attempt_id = ?2)"
      " ORDER BY id LIMIT ?4";
  static constexpr char kOfAll[] =
      "SELECT data FROM events WHERE ?1 = 0 AND ?2 = 0 AND id > ?3 ORDER BY id LIMIT ?4";
  const absl::StatusOr<Statement*> query = statement(run_id == 0 ? kOfAll : kOfRun);
  if (!query.ok()) return query.status();
  (*query)->bind(1, run_id);
  (*query)->bind(2, attempt_id);
  (*query)->bind(3, std::min(after_id, kLargest));
  (*query)->bind(4, limit);
  std::vector<std::string> rows;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back(row.blob(0));
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<std::vector<std::string>> SqliteReader::open_events(std::int64_t run_id,
                                                                   std::int64_t attempt_id,
                                                                   std::uint32_t limit) {
  static constexpr char kSql[] =
      "SELECT data FROM events WHERE open AND (?1 = 0 OR run_id = ?1)"
      " AND (?2 = 0 OR attempt_id = ?2) ORDER BY id LIMIT ?3";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, run_id);
  (*query)->bind(2, attempt_id);
  (*query)->bind(3, limit);
  std::vector<std::string> rows;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    rows.push_back(row.blob(0));
    return true;
  });
  if (!status.ok()) return status;
  return rows;
}

absl::StatusOr<EventCounts> SqliteReader::event_counts(std::int64_t run_id) {
  static constexpr char kSql[] =
      "SELECT (SELECT count(*) FROM events WHERE run_id = ?1),"
      " (SELECT count(*) FROM events WHERE run_id = ?1 AND open)";
  const absl::StatusOr<Statement*> query = statement(kSql);
  if (!query.ok()) return query.status();
  (*query)->bind(1, run_id);
  EventCounts counts;
  const absl::Status status = each_row(**query, [&](const Statement& row) {
    counts = {row.uint64(0), row.uint64(1)};
    return true;
  });
  if (!status.ok()) return status;
  return counts;
}

}  // namespace gradwarden::store
