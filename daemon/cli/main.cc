// The `gradwarden` command line: what the daemon knows, for people and scripts.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/query_client.h"
#include "proto/limits.h"

namespace gradwarden::cli {
namespace {

constexpr const char* kDefaultDaemon = "127.0.0.1:7460";

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 no such run, attempt or file, 2 bad usage, 3 no answer from the "
    "daemon,\n"
    "4 output cannot be written, 70 internal error";

std::string default_daemon() {
  const char* set = std::getenv("GRADWARDEN_DAEMON");
  return set != nullptr && *set != '\0' ? set : kDefaultDaemon;
}

struct Arguments {
  std::string daemon = default_daemon();
  bool json = false;
  std::string format = "csv";
  ShowOptions show;
  WatchOptions watch;
  ExportOptions exported;
};

// CLI11 reads "-1" as the largest number there is.
std::string check_whole_number(const std::string& text) {
  const bool good = !text.empty() && text.size() <= 18 &&
                    text.find_first_not_of("0123456789") == std::string::npos;
  return good ? "" : "is \"" + text + "\"; allowed: a whole number from 0 to 10^18 - 1";
}

std::string check_format(const std::string& text) {
  return text == "csv" || text == "jsonl" ? "" : "is \"" + text + "\"; allowed: csv, jsonl";
}

std::string check_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  const int number = digits ? std::atoi(port.c_str()) : 0;
  if (colon != 0 && number >= 1 && number <= 65535) return "";
  return "is \"" + text + "\"; allowed: host:port, for example " + kDefaultDaemon;
}

template <typename Number>
void add_number(CLI::App& command, const char* name, Number& value, const char* what) {
  command.add_option(name, value, what)
      ->check(CLI::Validator(check_whole_number, "NUMBER"))
      ->type_name("");
}

void add_daemon(CLI::App& command, Arguments& arguments) {
  command.add_option("--daemon", arguments.daemon,
                     "host:port of gradwardend's gRPC; default: GRADWARDEN_DAEMON or " +
                         std::string(kDefaultDaemon));
}

void add_common(CLI::App& command, Arguments& arguments, const char* examples) {
  add_daemon(command, arguments);
  command.add_flag("--json", arguments.json, "Print JSON");
  command.footer(std::string("Examples:\n") + examples + "\n" + kExitCodes);
}

CLI::App* add_runs(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("runs", "List the runs that the daemon knows");
  add_common(*command, a, "  gradwarden runs\n  gradwarden runs --json | jq '.runs[].run'");
  return command;
}

CLI::App* add_show(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("show", "Summary, plot of the grad norm and events of a run");
  command->add_option("run", a.show.run, "Run, or a local history file")->required();
  command->add_option("--attempt", a.show.attempt, "Attempt to draw; default: the latest");
  add_number(*command, "--events", a.show.events,
             "Print so many of the latest events, 10 if not set");
  command->add_option("--height", a.show.height, "Rows of the plot")
      ->check(CLI::Range(3, 100))
      ->capture_default_str();
  command->add_flag("--ascii", a.show.ascii, "Draw with plain characters");
  add_number(*command, "--step", a.show.step,
             "This step alone: rules that it broke, audit, signals, checkpoint to return to");
  command->add_flag("--flight", a.show.flight,
                    "What the flight recorder held at the last event, or at --step, by tensor");
  add_number(*command, "--rank", a.show.rank, "Whose flight recording; default: the lowest");
  add_common(*command, a,
             "  gradwarden show llama-7b\n  gradwarden show llama-7b --json\n"
             "  gradwarden show llama-7b --step 1200\n"
             "  gradwarden show llama-7b --flight --rank 3\n"
             "  gradwarden show ./run.gwhist");
  return command;
}

CLI::App* add_watch(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("watch", "Print events as they happen");
  command->add_option("run", a.watch.run, "Only of this run, which may begin later");
  command->add_flag("--include-open", a.watch.include_open, "First those that are going on");
  add_number(*command, "--count", a.watch.count, "Stop after so many lines; 0: go on");
  add_common(*command, a,
             "  gradwarden watch\n"
             "  gradwarden watch llama-7b        # also before the job begins\n"
             "  gradwarden watch llama-7b --json\n"
             "  gradwarden watch --count 1   # returns at the next event");
  return command;
}

CLI::App* add_export(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("export", "Print the reports of a run as CSV or JSON lines");
  command->add_option("run", a.exported.run, "Run, or a local history file")->required();
  command->add_option("--attempt", a.exported.attempt, "Only this attempt");
  command->add_option("--format", a.format, "csv or jsonl; --json means jsonl")
      ->check(CLI::Validator(check_format, "FORMAT"))
      ->type_name("");
  add_number(*command, "--first-step", a.exported.first_step, "From this step");
  add_number(*command, "--last-step", a.exported.last_step, "To this step; 0: to the end");
  add_common(*command, a,
             "  gradwarden export llama-7b > llama.csv\n"
             "  gradwarden export llama-7b --json --first-step 1000 | jq .grad_norm");
  return command;
}

// What is wrong with the arguments beyond each one alone; empty if nothing is.
std::string contradiction(const Arguments& a) {
  if (const std::string problem = check_address(a.daemon); !problem.empty()) {
    return "--daemon or GRADWARDEN_DAEMON " + problem;
  }
  if (a.show.rank && !a.show.flight) return "--rank is of --flight; give that too";
  if (a.show.rank.value_or(0) >= limits::kMaxWorldSize) {
    return "--rank is " + std::to_string(*a.show.rank) + "; allowed: 0 to " +
           std::to_string(limits::kMaxWorldSize - 1);
  }
  if (a.exported.last_step != 0 && a.exported.first_step > a.exported.last_step) {
    return "--first-step is " + std::to_string(a.exported.first_step) +
           "; allowed: 0 to --last-step (" + std::to_string(a.exported.last_step) + ")";
  }
  return {};
}

// CLI11's own sentence; for a command that does not exist one that names it.
std::string sentence_of(const CLI::ParseError& error, const CLI::App& app) {
  const std::vector<std::string> rest = app.remaining();
  if (app.get_subcommands().empty() && !rest.empty()) {
    return "no command \"" + rest.front() + "\"; allowed: runs, show, watch, export";
  }
  if (app.get_subcommands().empty()) return "which command? allowed: runs, show, watch, export";
  std::string text = error.what();
  // CLI11 puts "--count: " before what a check of ours says: "is ...".
  const std::size_t own = text.find(": is \"");
  if (own != std::string::npos) text.erase(own, 1);
  return text;
}

int dispatch(int argc, char** argv) {
  CLI::App app("gradwarden: runs, history and events of a gradwardend.");
  app.footer(std::string("Examples:\n  gradwarden runs\n  gradwarden show RUN\n  gradwarden watch\n"
                         "  gradwarden export RUN > run.csv\n") +
             kExitCodes);
  app.set_version_flag("--version", GRADWARDEN_VERSION);
  app.require_subcommand(1);
  Arguments a;
  add_daemon(app, a);
  const CLI::App* runs = add_runs(app, a);
  const CLI::App* show = add_show(app, a);
  const CLI::App* watch = add_watch(app, a);
  const CLI::App* exported = add_export(app, a);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "gradwarden: %s (see --help)\n", sentence_of(error, app).c_str());
    return kUsage;
  }
  if (const std::string problem = contradiction(a); !problem.empty()) {
    std::fprintf(stderr, "gradwarden: %s (see --help)\n", problem.c_str());
    return kUsage;
  }
  QueryClient client(a.daemon);
  a.show.json = a.watch.json = a.json;
  if (a.json || a.format == "jsonl") a.exported.format = ExportFormat::kJsonLines;
  if (runs->parsed()) return runs_command(client, a.json);
  if (show->parsed()) {
    if (a.show.flight) return show_flight_command(client, a.show);
    return a.show.step ? show_step_command(client, a.show) : show_command(client, a.show);
  }
  if (watch->parsed()) return watch_command(client, a.watch);
  return exported->parsed() ? export_command(client, a.exported) : kUsage;
}

}  // namespace
}  // namespace gradwarden::cli

int main(int argc, char** argv) {
  // What goes wrong is said once, in our words; gRPC's own lines would stand beside it.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  try {
    return gradwarden::cli::dispatch(argc, argv);
  } catch (const std::exception& error) {  // out of memory, or a mistake of ours
    std::fputs("gradwarden: internal error: ", stderr);
    std::fputs(error.what(), stderr);
    std::fputc('\n', stderr);
    return gradwarden::cli::kInternal;
  }
}
