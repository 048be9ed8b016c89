// The `gradwarden` command line: what the daemon knows, for people and scripts.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>

#include "daemon/cli/commands.h"
#include "daemon/cli/query_client.h"

namespace gradwarden::cli {
namespace {

constexpr const char* kDefaultDaemon = "127.0.0.1:7460";

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 no such run, 2 bad usage, 3 no answer from the daemon";

struct Arguments {
  std::string daemon = kDefaultDaemon;
  bool json = false;
  ShowOptions show;
  WatchOptions watch;
  ExportOptions exported;
};

void add_common(CLI::App& command, Arguments& arguments, const char* examples) {
  command.add_option("--daemon", arguments.daemon, "host:port of gradwardend's gRPC")
      ->envname("GRADWARDEN_DAEMON")
      ->capture_default_str();
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
  command->add_option("--height", a.show.height, "Rows of the plot")->check(CLI::Range(3, 100));
  command->add_flag("--ascii", a.show.ascii, "Draw with plain characters");
  add_common(*command, a,
             "  gradwarden show llama-7b\n  gradwarden show llama-7b --json\n"
             "  gradwarden show ./run.gwhist");
  return command;
}

CLI::App* add_watch(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("watch", "Print events as they happen");
  command->add_option("run", a.watch.run, "Only of this run");
  command->add_flag("--include-open", a.watch.include_open, "First those that are going on");
  command->add_option("--count", a.watch.count, "Stop after so many; 0: go on");
  add_common(*command, a,
             "  gradwarden watch\n  gradwarden watch llama-7b --json\n"
             "  gradwarden watch --count 1   # returns at the next event");
  return command;
}

CLI::App* add_export(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("export", "Print the reports of a run as CSV or JSON lines");
  command->add_option("run", a.exported.run, "Run, or a local history file")->required();
  command->add_option("--attempt", a.exported.attempt, "Only this attempt");
  static const std::map<std::string, ExportFormat> kFormats = {{"csv", ExportFormat::kCsv},
                                                               {"jsonl", ExportFormat::kJsonLines}};
  command->add_option("--format", a.exported.format, "csv or jsonl")
      ->transform(CLI::CheckedTransformer(kFormats));
  command->add_option("--first-step", a.exported.first_step, "From this step");
  command->add_option("--last-step", a.exported.last_step, "To this step; 0: to the end");
  add_common(*command, a,
             "  gradwarden export llama-7b > llama.csv\n"
             "  gradwarden export llama-7b --json --first-step 1000 | jq .grad_norm");
  return command;
}

int dispatch(int argc, char** argv) {
  CLI::App app("gradwarden: runs, history and events of a gradwardend.");
  app.footer(std::string("Examples:\n  gradwarden runs\n  gradwarden show RUN\n  gradwarden watch\n"
                         "  gradwarden export RUN > run.csv\n") +
             kExitCodes);
  app.set_version_flag("--version", GRADWARDEN_VERSION);
  app.require_subcommand(1);
  Arguments a;
  const CLI::App* runs = add_runs(app, a);
  const CLI::App* show = add_show(app, a);
  const CLI::App* watch = add_watch(app, a);
  const CLI::App* exported = add_export(app, a);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "gradwarden: %s (see --help)\n", error.what());
    return kUsage;
  }
  QueryClient client(a.daemon);
  a.show.json = a.watch.json = a.json;
  if (a.json) a.exported.format = ExportFormat::kJsonLines;
  if (runs->parsed()) return runs_command(client, a.json);
  if (show->parsed()) return show_command(client, a.show);
  if (watch->parsed()) return watch_command(client, a.watch);
  return exported->parsed() ? export_command(client, a.exported) : kUsage;
}

}  // namespace
}  // namespace gradwarden::cli

int main(int argc, char** argv) { return gradwarden::cli::dispatch(argc, argv); }
