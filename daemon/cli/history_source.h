// Where history comes from when it is not the daemon: a local history file that a reporter wrote.
#ifndef GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_
#define GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_

#include <functional>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// True if `name` must mean a file: it has a '/', which no run's name has, or it is an existing
// history file. Any other file here may share its name with a run, and the run is meant.
bool is_history_file(const std::string& name);

// Calls `take` with the reports of the file, attempt by attempt, until it returns false, and sets
// `contents` to what the file says of the run and its attempts. What is damaged is skipped and
// said on standard error. False, with a line there, if the file cannot be read at all or has no
// such attempt; an empty `attempt` means all.
bool read_history_file(const std::string& path, const std::string& attempt,
                       const std::function<bool(const v1::HistoryChunk&)>& take,
                       v1::GetRunResponse* contents);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_
