// The command line of gradwardend: flags for the common things, over a configuration file.
#ifndef GRADWARDEN_DAEMON_APP_FLAGS_H_
#define GRADWARDEN_DAEMON_APP_FLAGS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/app/config.h"

namespace gradwarden::app {

struct Flags {
  Config config;  // defaults, then the file, then flags
  bool check_only = false;
  std::string ports_file;  // empty: none
};

// Returns the exit code where the process is to end now (help, version, a mistake), having printed
// why.
std::optional<int> parse_flags(int argc, char** argv, Flags& flags);

// The configuration that the same flags give now, its file read again.
absl::StatusOr<Config> read_again(int argc, char** argv);

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_FLAGS_H_
