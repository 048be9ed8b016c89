// Opening a history that may be damaged: the daemon always starts. A file that cannot be used is
// set aside, whole and under a name of its own, and everything in it that can still be read is
// copied into a new one.
//
// What is checked at each start is what must be right for the daemon to work: the header, the
// length, the schema, and the tables of runs, attempts and events. Segments are too many for that;
// a damaged one is found by who reads it. A commit that meets damage leaves a mark, so that the
// next start sets the file aside.
#ifndef GRADWARDEN_DAEMON_STORE_RECOVERY_H_
#define GRADWARDEN_DAEMON_STORE_RECOVERY_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/store/sqlite_store.h"

namespace gradwarden::store {

// What became of a damaged file.
struct Recovery {
  std::string damage;          // what was found; empty: nothing was wrong
  std::string set_aside;       // where the damaged file lies now
  std::uint64_t attempts = 0;  // recovered
  std::uint64_t events = 0;
  std::uint64_t segments = 0;
  std::uint64_t reports = 0;  // in these segments
  bool end_known = true;      // false: rows behind the last readable one were lost and not counted
  std::uint64_t lost_rows = 0;  // that were there and could not be read, or belonged to such
};

// As SqliteStore::open, but DATA_LOSS only if no new file can be made either.
absl::StatusOr<std::unique_ptr<SqliteStore>> open_or_recover(const SqliteStoreOptions& options,
                                                             Recovery& recovery);

// The history in the folder is damaged: to be called by who found it.
void mark_damaged(const std::string& folder);

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_RECOVERY_H_
