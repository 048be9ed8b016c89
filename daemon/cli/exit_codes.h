// Exit codes of the command line, the same for every command. Part of its interface.
#ifndef GRADWARDEN_DAEMON_CLI_EXIT_CODES_H_
#define GRADWARDEN_DAEMON_CLI_EXIT_CODES_H_

namespace gradwarden::cli {

enum ExitCode : int {
  kOk = 0,
  kNotFound = 1,     // no such run, attempt or file
  kUsage = 2,        // bad flag or value
  kUnreachable = 3,  // no answer from the daemon, or it went away
  kOutput = 4,       // standard output cannot be written
  kRefused = 5,      // the daemon wants a token, or one with another scope
  kInternal = 70,    // a mistake of ours, or no memory
};

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_EXIT_CODES_H_
