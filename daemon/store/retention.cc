#include "daemon/store/retention.h"

#include <sqlite3.h>

#include <algorithm>
#include <utility>

namespace gradwarden::store {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
// In one transaction: milliseconds, for which a commit may have to wait.
constexpr int kAtATime = 64;
// Space is gained in larger steps than it is lost.
constexpr std::uint64_t kSlackParts = 20;

// ?1 is the highest id; each statement of the group sees the same rows.
constexpr char kChosen[] = "(SELECT id FROM segments WHERE id <= ?1 ORDER BY id LIMIT ?2)";

// An empty table gives ids anew: a time noted under one that is gone would make new ones look old.
constexpr char kForgetTimes[] =
    "DELETE FROM segment_times WHERE segment_id > (SELECT coalesce(max(id), 0) FROM segments)";

}  // namespace

absl::StatusOr<std::unique_ptr<Retention>> Retention::open(const std::string& path,
                                                           const RetentionOptions& options,
                                                           Clock clock, Observer observer) {
  absl::StatusOr<Connection> connection = Connection::open(path, Connection::Mode::kReadWrite);
  if (!connection.ok()) return connection.status();
  for (const char* pragma : {"PRAGMA synchronous = NORMAL", "PRAGMA wal_autocheckpoint = 0"}) {
    if (absl::Status status = connection->execute(pragma); !status.ok()) return status;
  }
  return std::unique_ptr<Retention>(
      new Retention(*std::move(connection), options, std::move(clock), std::move(observer)));
}

Retention::Retention(Connection connection, const RetentionOptions& options, Clock clock,
                     Observer observer)
    : connection_(std::move(connection)),
      options_(options),
      clock_(std::move(clock)),
      observer_(std::move(observer)),
      max_age_seconds_(options.limits.max_age_seconds),
      max_bytes_(options.limits.max_bytes) {}

Retention::~Retention() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Retention::set_limits(const RetentionLimits& limits) {
  max_age_seconds_ = limits.max_age_seconds;
  max_bytes_ = limits.max_bytes;
}

void Retention::start() {
  thread_ = std::thread([this] { run(); });
}

void Retention::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    const absl::StatusOr<Pruned> pruned = pass();
    if (observer_) observer_(pruned);
    lock.lock();
    wake_.wait_for(lock, options_.interval, [this] { return stopping_; });
  }
}

absl::StatusOr<Pruned> Retention::pass() {
  const std::uint64_t now = clock_();
  if (absl::Status status = note_time(now); !status.ok()) return status;
  Pruned pruned;
  const std::uint64_t age = max_age_seconds_;
  if (age != 0) {
    const std::uint64_t least = std::max(age, options_.protected_seconds) * kSecondNs;
    const absl::StatusOr<std::int64_t> old = newest_before(now > least ? now - least : 0);
    if (!old.ok()) return old.status();
    for (absl::StatusOr<bool> more = true; *more;) {
      if (more = delete_some(*old, pruned); !more.ok()) return more.status();
      if (*more && pause()) return pruned;
    }
  }
  absl::StatusOr<std::uint64_t> bytes = bytes_in_use();
  if (!bytes.ok()) return bytes.status();
  const std::uint64_t limit = max_bytes_;
  if (limit != 0 && *bytes > limit) {
    const std::uint64_t young = options_.protected_seconds * kSecondNs;
    const absl::StatusOr<std::int64_t> old = newest_before(now > young ? now - young : 0);
    if (!old.ok()) return old.status();
    while (bytes.ok() && *bytes > limit - limit / kSlackParts) {
      const absl::StatusOr<bool> more = delete_some(*old, pruned);
      if (!more.ok()) return more.status();
      if (!*more) break;
      bytes = bytes_in_use();
      if (pause()) return pruned;
    }
    if (!bytes.ok()) return bytes.status();
  }
  pruned.bytes_in_use = *bytes;
  pruned.above_limit = limit != 0 && *bytes > limit;
  return pruned;
}

// A transaction of ours is short, but commits that wait for one after the other would get no turn:
// they have as much time as was taken. True: the daemon wants to end.
bool Retention::pause() {
  std::unique_lock<std::mutex> lock(mutex_);
  return wake_.wait_for(lock, last_took_, [this] { return stopping_; });
}

absl::Status Retention::note_time(std::uint64_t now_ns) {
  if (absl::Status status = connection_.execute(kForgetTimes); !status.ok()) return status;
  absl::StatusOr<Statement> note = connection_.prepare(
      "INSERT INTO segment_times(segment_id, time_ns) SELECT max(id), ? FROM segments"
      " WHERE true HAVING max(id) IS NOT NULL ON CONFLICT(segment_id) DO NOTHING");
  if (!note.ok()) return note.status();
  note->bind(1, now_ns);
  return note->run();
}

absl::StatusOr<std::int64_t> Retention::newest_before(std::uint64_t time_ns) {
  return connection_.query_int64(
      "SELECT coalesce(max(segment_id), 0) FROM segment_times"
      " WHERE time_ns < " +
      std::to_string(time_ns));
}

absl::StatusOr<bool> Retention::delete_some(std::int64_t newest, Pruned& pruned) {
  const std::string chosen = kChosen;
  const std::string statements[] = {
      // What was stored stays known.
      "INSERT INTO expired(attempt_id, rank, last_sequence) SELECT attempt_id, rank,"
      " max(last_sequence) FROM segments WHERE id IN " +
          chosen +
          " GROUP BY attempt_id, rank ON CONFLICT(attempt_id, rank) DO UPDATE SET"
          " last_sequence = max(last_sequence, excluded.last_sequence)",
      "DELETE FROM flights WHERE (attempt_id, rank, sequence) IN (SELECT f.attempt_id, f.rank,"
      " f.sequence FROM flights f JOIN segments s ON f.attempt_id = s.attempt_id AND"
      " f.rank = s.rank AND f.sequence BETWEEN s.first_sequence AND s.last_sequence"
      " WHERE s.id IN " +
          chosen + ")",
      // Times of segments that are gone.
      "DELETE FROM segment_times WHERE segment_id < (SELECT min(id) FROM " + chosen + ")",
      "DELETE FROM segments WHERE id IN " + chosen};
  const auto one = connection_.query_int64(
      "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM (SELECT * FROM segments"
      " WHERE id <= " +
      std::to_string(newest) + " ORDER BY id LIMIT " + std::to_string(kAtATime) + ")");
  if (!one.ok()) return one.status();
  if (*one == 0) return false;
  const auto begin = std::chrono::steady_clock::now();
  absl::Status status = connection_.execute("BEGIN IMMEDIATE");
  std::uint64_t deleted = 0;
  for (const std::string& sql : statements) {
    if (!status.ok()) break;
    absl::StatusOr<Statement> statement = connection_.prepare(sql);
    if (!statement.ok()) {
      status = statement.status();
      break;
    }
    statement->bind(1, newest);
    statement->bind(2, std::int64_t{kAtATime});
    status = statement->run();
    deleted = static_cast<std::uint64_t>(sqlite3_changes(connection_.handle()));
  }
  if (status.ok()) status = connection_.execute(kForgetTimes);
  if (status.ok()) status = connection_.execute("COMMIT");
  last_took_ = std::chrono::steady_clock::now() - begin;
  if (!status.ok()) {
    if (connection_.in_transaction()) connection_.execute("ROLLBACK").IgnoreError();
    return status;
  }
  pruned.segments += deleted;
  pruned.reports += static_cast<std::uint64_t>(*one);
  return true;
}

absl::StatusOr<std::uint64_t> Retention::bytes_in_use() {
  const auto pages = connection_.query_int64("PRAGMA page_count");
  const auto unused = connection_.query_int64("PRAGMA freelist_count");
  const auto size = connection_.query_int64("PRAGMA page_size");
  for (const auto& value : {pages, unused, size}) {
    if (!value.ok()) return value.status();
  }
  return static_cast<std::uint64_t>((*pages - *unused) * *size);
}

}  // namespace gradwarden::store
