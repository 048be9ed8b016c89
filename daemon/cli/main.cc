// The `gradwarden` command line: what the daemon knows, for people and scripts.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "daemon/cli/arguments.h"
#include "daemon/cli/commands.h"
#include "daemon/cli/exit_codes.h"
#include "daemon/cli/query_client.h"

namespace gradwarden::cli {
namespace {

constexpr const char* kCommands =
    "runs, show, top, watch, export, replay, follow, compare, skiplist, rewind, silence";

// CLI11's own sentence; for a command that does not exist one that names it.
std::string sentence_of(const CLI::ParseError& error, const CLI::App& app) {
  const std::vector<std::string> rest = app.remaining();
  if (app.get_subcommands().empty() && !rest.empty()) {
    return "no command \"" + rest.front() + "\"; allowed: " + kCommands;
  }
  if (app.get_subcommands().empty()) return std::string("which command? allowed: ") + kCommands;
  std::string text = error.what();
  // CLI11 puts "--count: " before what a check of ours says: "is ...".
  const std::size_t own = text.find(": is \"");
  if (own != std::string::npos) text.erase(own, 1);
  return text;
}

int dispatch(int argc, char** argv) {
  CLI::App app("gradwarden: runs, history and events of a gradwardend.");
  app.footer(std::string("Examples:\n  gradwarden runs\n  gradwarden show RUN\n  gradwarden watch\n"
                         "  gradwarden export RUN > run.csv\n"
                         "  gradwarden replay main.log\n") +
             kExitCodes);
  app.set_version_flag("--version", GRADWARDEN_VERSION);
  app.require_subcommand(1);
  Arguments a;
  add_daemon(app, a);
  const Commands commands = add_commands(app, a);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "gradwarden: %s (see --help)\n", sentence_of(error, app).c_str());
    return kUsage;
  }
  choose_one(a);
  if (const std::string problem = contradiction(a); !problem.empty()) {
    std::fprintf(stderr, "gradwarden: %s (see --help)\n", problem.c_str());
    return kUsage;
  }
  if (commands.replayed->parsed()) {
    a.replay.json = a.json;
    return replay_command(a.replay);
  }
  if (commands.followed->parsed()) {
    a.follow.daemon = a.daemon;
    return follow_command(a.follow, a.security);
  }
  if (commands.silenced->parsed()) {
    a.silence.daemon = a.daemon;
    a.silence.json = a.json;
    return silence_command(a.silence, a.security);
  }
  QueryClient client(a.daemon, a.security);
  a.compare.json = a.skiplist.json = a.rewind.json = a.json;
  if (commands.top->parsed()) return top_command(client, a.top);
  if (commands.compared->parsed()) return compare_command(client, a.compare);
  if (commands.skipped->parsed()) return skiplist_command(client, a.skiplist);
  if (commands.rewound->parsed()) return rewind_command(client, a.rewind);
  a.show.json = a.watch.json = a.json;
  if (a.json || a.format == "jsonl") a.exported.format = ExportFormat::kJsonLines;
  if (commands.runs->parsed()) return runs_command(client, a.json);
  if (commands.show->parsed()) {
    if (a.show.flight) return show_flight_command(client, a.show);
    return a.show.step ? show_step_command(client, a.show) : show_command(client, a.show);
  }
  if (commands.watch->parsed()) return watch_command(client, a.watch);
  return commands.exported->parsed() ? export_command(client, a.exported) : kUsage;
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
