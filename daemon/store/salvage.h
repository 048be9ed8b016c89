// Copies the rows of a damaged history into a sound one. Internal to store/.
#ifndef GRADWARDEN_DAEMON_STORE_SALVAGE_H_
#define GRADWARDEN_DAEMON_STORE_SALVAGE_H_

#include <string>

#include "absl/status/status.h"
#include "daemon/store/recovery.h"
#include "daemon/store/sqlite.h"

namespace gradwarden::store {

// `into` is a connection to a new history without rows. An error says only that nothing could be
// copied at all, or that the new file cannot be written; unreadable rows are counted.
absl::Status salvage(const std::string& damaged, Connection& into, Recovery& recovery);

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_SALVAGE_H_
