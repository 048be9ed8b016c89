// The store in one SQLite file in WAL mode, <folder>/history.sqlite.
//
// A commit survives a killed process (Durability::kProcess) or also power loss (kPower, one fsync
// per group of items). Readers have their own connections and snapshots.
#ifndef GRADWARDEN_DAEMON_STORE_SQLITE_STORE_H_
#define GRADWARDEN_DAEMON_STORE_SQLITE_STORE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/store/checkpointer.h"
#include "daemon/store/sqlite.h"
#include "daemon/store/store.h"

namespace gradwarden::store {

enum class Durability { kProcess, kPower };

struct SqliteStoreOptions {
  std::string folder;  // must exist
  Durability durability = Durability::kProcess;
};

class SqliteStore final : public Store {
 public:
  // UNIMPLEMENTED: history of a newer version. Other codes: the file cannot be used.
  static absl::StatusOr<std::unique_ptr<SqliteStore>> open(const SqliteStoreOptions& options);

  absl::Status commit(const std::vector<const CommitItem*>& items) override;
  absl::StatusOr<std::unique_ptr<StoreReader>> open_reader() override;
  const std::string& path() const { return path_; }

 private:
  // (attempt, level, bucket)
  using BucketKey = std::tuple<std::int64_t, std::uint32_t, std::uint64_t>;

  SqliteStore(std::string path, Connection connection);
  absl::Status prepare_statements();
  void bound_log();
  absl::Status write_items(const std::vector<const CommitItem*>& items);
  absl::Status write_begin(const CommitItem& item);
  absl::Status write_segments(const CommitItem& item);
  absl::Status write_flights(const CommitItem& item);
  absl::Status write_event(const EventRow& event);
  absl::Status write_progress(std::int64_t attempt_id, const AttemptProgress& progress);
  absl::Status write_rollup(const BucketKey& key, const Rollup& rollup);

  const std::string path_;
  Connection connection_;
  std::unique_ptr<Checkpointer> checkpointer_;
  int log_pages_ = 0;  // in the write-ahead log after the last commit
  Statement begin_, commit_, rollback_;
  Statement insert_run_, insert_attempt_, insert_segment_, upsert_event_, update_attempt_,
      upsert_rollup_, insert_flight_, prune_flights_, insert_checkpoint_;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_SQLITE_STORE_H_
