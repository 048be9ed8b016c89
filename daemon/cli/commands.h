// The commands. Each prints to standard output, trouble to standard error, and returns an ExitCode.
#ifndef GRADWARDEN_DAEMON_CLI_COMMANDS_H_
#define GRADWARDEN_DAEMON_CLI_COMMANDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gradwarden {
struct ChannelSecurity;
}

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

struct ReplayCommandOptions {
  std::vector<std::string> files;
  std::vector<std::string> columns;  // "loss=train_loss"
  std::optional<double> clip_at;     // that the run clips at
  double multiple = 3.0;             // of the rolling-mean rule
  std::string html;                  // write a page with plots here
  bool json = false;
};

struct SkiplistOptions {
  std::string run;
  std::string cause;  // empty: any
  std::uint64_t least_spikes = 1;
  bool json = false;
};

struct RewindOptions {
  std::string run;
  std::uint64_t event = 0;     // 0: the last incident
  std::uint64_t margin = 100;  // steps before it
  bool json = false;
};

struct CompareOptions {
  std::vector<std::string> runs;  // "run" or "run@attempt"
  double tolerance = 0.05;        // of the loss
  bool json = false;
};

struct FollowOptions {
  std::string file;
  std::string run;
  std::vector<std::string> columns;  // as of replay
  std::string daemon;
  double idle_seconds = 0;  // end when the log has not grown for so long; 0: never
};

int runs_command(QueryClient& client, bool json);
int show_command(QueryClient& client, const ShowOptions& options);
int show_step_command(QueryClient& client, const ShowOptions& options);
int show_flight_command(QueryClient& client, const ShowOptions& options);
int watch_command(QueryClient& client, const WatchOptions& options);

struct TopOptions {
  double interval_s = 2;
  bool once = false;
};
// Runs and events in place on a terminal until Ctrl-C; once where there is none.
int top_command(QueryClient& client, const TopOptions& options);
int export_command(QueryClient& client, const ExportOptions& options);
struct SilenceOptions {
  std::string run;
  std::string kind;
  std::string comment;
  std::string duration = "2h";  // "90s", "30m", "2h", "7d"
  std::uint64_t remove = 0;
  bool list = false;
  bool json = false;
  std::string daemon;
};

int silence_command(const SilenceOptions& options, const ChannelSecurity& security);
int skiplist_command(QueryClient& client, const SkiplistOptions& options);
int rewind_command(QueryClient& client, const RewindOptions& options);
int compare_command(QueryClient& client, const CompareOptions& options);
int follow_command(const FollowOptions& options, const ChannelSecurity& security);
// Needs no daemon.
int replay_command(const ReplayCommandOptions& options);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_COMMANDS_H_
