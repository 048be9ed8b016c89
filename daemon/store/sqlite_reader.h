// The reading side of the SQLite store: a read-only connection of its own. Every call is one short
// snapshot, so that a slow reader never keeps the write-ahead log from being folded in.
// One thread at a time.
#ifndef GRADWARDEN_DAEMON_STORE_SQLITE_READER_H_
#define GRADWARDEN_DAEMON_STORE_SQLITE_READER_H_

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/store/sqlite.h"
#include "daemon/store/store.h"

namespace gradwarden::store {

class SqliteReader final : public StoreReader {
 public:
  static absl::StatusOr<std::unique_ptr<StoreReader>> open(const std::string& path);

  absl::StatusOr<HighestIds> highest_ids() override;
  absl::StatusOr<std::vector<RunRow>> runs() override;
  absl::StatusOr<std::optional<RunRow>> run(std::string_view name) override;
  absl::StatusOr<std::vector<Attempt>> attempts(std::int64_t run_id) override;
  absl::StatusOr<std::optional<Attempt>> attempt(std::int64_t run_id,
                                                 std::string_view name) override;
  absl::StatusOr<std::vector<Range>> stored_sequences(std::int64_t attempt_id,
                                                      std::uint32_t rank) override;
  absl::StatusOr<std::vector<Segment>> segments(std::int64_t attempt_id, std::uint64_t first,
                                                std::uint64_t last, Position after,
                                                std::size_t max_bytes) override;
  absl::StatusOr<std::vector<Rollup>> rollups(std::int64_t attempt_id, std::uint32_t level,
                                              std::uint64_t first, std::uint64_t last) override;
  absl::StatusOr<std::optional<Flight>> flight(std::int64_t attempt_id,
                                               std::optional<std::uint64_t> step,
                                               std::optional<std::uint32_t> rank) override;
  absl::StatusOr<std::vector<std::uint32_t>> flight_ranks(std::int64_t attempt_id,
                                                          std::uint64_t step,
                                                          std::uint32_t limit) override;
  absl::StatusOr<std::vector<std::uint64_t>> checkpoints(std::int64_t attempt_id,
                                                         std::uint32_t limit) override;
  absl::StatusOr<std::vector<std::string>> events(std::int64_t run_id, std::int64_t attempt_id,
                                                  std::uint64_t after_id,
                                                  std::uint32_t limit) override;
  absl::StatusOr<std::vector<std::string>> open_events(std::int64_t run_id, std::int64_t attempt_id,
                                                       std::uint32_t limit) override;
  absl::StatusOr<EventCounts> event_counts(std::int64_t run_id) override;

 private:
  explicit SqliteReader(Connection connection) : connection_(std::move(connection)) {}
  // Prepared once, then reused. The text is a literal, whose address identifies it.
  absl::StatusOr<Statement*> statement(const char* sql);

  Connection connection_;
  std::map<const char*, Statement> statements_;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_SQLITE_READER_H_
