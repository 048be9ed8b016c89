// Where history comes from: a run in the daemon, or a local history file that a reporter wrote.
#ifndef GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_
#define GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_

#include <functional>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// True if `name` is an existing file (a run cannot be: its name has no '/', but a file here may
// share its name).
bool is_history_file(const std::string& name);

// Calls `take` with the reports of the file, attempt by attempt. What is damaged is skipped and
// said on standard error. False, with a line there, if the file cannot be read at all.
bool read_history_file(const std::string& path, const std::string& attempt,
                       const std::function<bool(const v1::HistoryChunk&)>& take);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_HISTORY_SOURCE_H_
