// A thin owner of SQLite's handles: connections and prepared statements, errors as absl::Status.
// Internal to store/. A Connection and its Statements are used by one thread at a time.
#ifndef GRADWARDEN_DAEMON_STORE_SQLITE_H_
#define GRADWARDEN_DAEMON_STORE_SQLITE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace gradwarden::store {

class Statement {
 public:
  Statement() = default;

  // Parameters count from 1. Text and blobs are not copied: they must live until reset().
  void bind(int index, std::int64_t value);
  void bind(int index, std::uint64_t value) { bind(index, static_cast<std::int64_t>(value)); }
  void bind(int index, std::uint32_t value) { bind(index, static_cast<std::int64_t>(value)); }
  void bind(int index, bool value) { bind(index, static_cast<std::int64_t>(value)); }
  void bind(int index, double value);  // NaN becomes NULL
  void bind_text(int index, std::string_view value);
  void bind_blob(int index, std::string_view value);
  void bind_null(int index);

  // True if there is a row.
  absl::StatusOr<bool> step();
  // Runs to the end, ignoring rows, and resets.
  absl::Status run();
  void reset();

  // Columns count from 0.
  std::int64_t int64(int column) const;
  std::uint64_t uint64(int column) const { return static_cast<std::uint64_t>(int64(column)); }
  double real(int column) const;  // NULL becomes NaN
  bool is_null(int column) const;
  std::string text(int column) const;
  std::string blob(int column) const;

 private:
  friend class Connection;
  struct Finalizer {
    void operator()(sqlite3_stmt* statement) const;
  };
  std::unique_ptr<sqlite3_stmt, Finalizer> handle_;
};

// Resets the statement when a query is left, so that no read transaction stays open.
class ResetOnExit {
 public:
  explicit ResetOnExit(Statement& statement) : statement_(statement) {}
  ~ResetOnExit() { statement_.reset(); }
  ResetOnExit(const ResetOnExit&) = delete;
  ResetOnExit& operator=(const ResetOnExit&) = delete;

 private:
  Statement& statement_;
};

class Connection {
 public:
  enum class Mode { kReadWrite, kReadOnly };
  static absl::StatusOr<Connection> open(const std::string& path, Mode mode);

  absl::Status execute(const std::string& sql);
  // The statement must not outlive the connection.
  absl::StatusOr<Statement> prepare(std::string_view sql);
  // First column of the first row.
  absl::StatusOr<std::int64_t> query_int64(const std::string& sql);
  bool in_transaction() const;
  sqlite3* handle() const { return handle_.get(); }

 private:
  struct Closer {
    void operator()(sqlite3* database) const;
  };
  std::unique_ptr<sqlite3, Closer> handle_;
};

// A status for SQLite's result code: RESOURCE_EXHAUSTED for a full disk, DATA_LOSS for a damaged
// file, UNAVAILABLE for what may pass, INTERNAL else.
absl::Status sqlite_error(sqlite3* database, int code, std::string_view what);

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_SQLITE_H_
