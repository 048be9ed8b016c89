// The tables of the history file and its version. Internal to store/.
#ifndef GRADWARDEN_DAEMON_STORE_SCHEMA_H_
#define GRADWARDEN_DAEMON_STORE_SCHEMA_H_

#include <string>

#include "absl/status/status.h"
#include "daemon/store/sqlite.h"

namespace gradwarden::store {

inline constexpr int kSchemaVersion = 3;
inline constexpr char kHistoryFile[] = "history.sqlite";

// Creates the tables in a new file, adds what is new to one of an older version, keeping all that
// it holds, and checks the version. UNIMPLEMENTED: the file is
// of a newer version and was not touched; DATA_LOSS: it is damaged or no history file.
absl::Status prepare_schema(Connection& connection, const std::string& path);

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_SCHEMA_H_
