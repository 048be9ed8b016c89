// The commands. Each prints to standard output, trouble to standard error, and returns an ExitCode.
#ifndef GRADWARDEN_DAEMON_CLI_COMMANDS_H_
#define GRADWARDEN_DAEMON_CLI_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>

namespace gradwarden::cli {

class QueryClient;

struct ShowOptions {
  std::string run;      // or a local history file
  std::string attempt;  // empty: the latest
  bool json = false;
  bool ascii = false;
  int height = 14;
  std::uint64_t events = 10;  // print the latest of them; JSON has all
  bool flight = false;        // the flight recording of the last event, or of `step`
  std::optional<std::uint64_t> step = {};
  std::optional<std::uint64_t> rank = {};  // whose flight recording
};

struct WatchOptions {
  std::string run;  // empty: all
  bool json = false;
  bool include_open = false;
  std::uint64_t count = 0;  // stop after so many lines; 0: go on
};

enum class ExportFormat { kCsv, kJsonLines };

struct ExportOptions {
  std::string run;  // or a local history file
  std::string attempt;
  ExportFormat format = ExportFormat::kCsv;
  std::uint64_t first_step = 0;
  std::uint64_t last_step = 0;  // 0: to the end
};

int runs_command(QueryClient& client, bool json);
int show_command(QueryClient& client, const ShowOptions& options);
int show_step_command(QueryClient& client, const ShowOptions& options);
int show_flight_command(QueryClient& client, const ShowOptions& options);
int watch_command(QueryClient& client, const WatchOptions& options);
int export_command(QueryClient& client, const ExportOptions& options);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_COMMANDS_H_
