// Standard output, watched: a full disk must not pass for a complete export. Where a reader closes
// the pipe the process ends by SIGPIPE, as tools do; where that signal is ignored, writing stops
// without a word.
#ifndef GRADWARDEN_DAEMON_CLI_OUTPUT_H_
#define GRADWARDEN_DAEMON_CLI_OUTPUT_H_

#include <string>

namespace gradwarden::cli {

// Writes the text as it is. False once nothing more can be written.
bool print(const std::string& text);
// Sends what is buffered on its way. False as above.
bool flush_output();
// Flushes; `code`, or kOutput with a line on standard error if anything was not written.
int finish_output(int code);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_OUTPUT_H_
