// The arguments of the `gradwarden` command line: what each command takes, and what of it
// contradicts itself. Plain values and functions of one thread.
#ifndef GRADWARDEN_DAEMON_CLI_ARGUMENTS_H_
#define GRADWARDEN_DAEMON_CLI_ARGUMENTS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "daemon/cli/commands.h"
#include "proto/secure_channel.h"

namespace gradwarden::cli {

inline constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 no such run, attempt or file, 2 bad usage, 3 no answer from the "
    "daemon,\n"
    "4 output cannot be written, 5 refused for want of a token or scope, 70 internal error";

// GRADWARDEN_DAEMON, or where a daemon on this host listens.
std::string default_daemon();
// As the environment says.
ChannelSecurity default_security();

struct Arguments {
  std::string daemon = default_daemon();
  ChannelSecurity security = default_security();
  bool json = false;
  std::string format = "csv";
  ShowOptions show;
  WatchOptions watch;
  TopOptions top;
  ExportOptions exported;
  ReplayCommandOptions replay;
  FollowOptions follow;
  SkiplistOptions skiplist;
  RewindOptions rewind;
  CompareOptions compare;
  SilenceOptions silence;
};

// The commands, each to be asked whether it was parsed.
struct Commands {
  const CLI::App* runs = nullptr;
  const CLI::App* show = nullptr;
  const CLI::App* top = nullptr;
  const CLI::App* watch = nullptr;
  const CLI::App* exported = nullptr;
  const CLI::App* replayed = nullptr;
  const CLI::App* followed = nullptr;
  const CLI::App* compared = nullptr;
  const CLI::App* skipped = nullptr;
  const CLI::App* rewound = nullptr;
  const CLI::App* silenced = nullptr;
};

// Which daemon, and how to talk to it.
void add_daemon(CLI::App& command, Arguments& arguments);
// `arguments` take what is parsed, so they outlive `app`.
Commands add_commands(CLI::App& app, Arguments& arguments);

// Of several daemons the one that has the run.
void choose_one(Arguments& arguments);
// What is wrong with the arguments beyond each one alone; empty if nothing is.
std::string contradiction(const Arguments& arguments);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_ARGUMENTS_H_
