#include "daemon/cli/arguments.h"

#include <cstdlib>

#include "proto/daemon_choice.h"
#include "proto/limits.h"

namespace gradwarden::cli {
namespace {

constexpr const char* kDefaultDaemon = "127.0.0.1:7460";

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

CLI::App* add_replay(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "replay", "What the detectors find in logs that exist already; needs no daemon");
  command->add_option("file", a.replay.files, "Logs; the format is found by the content")
      ->required();
  command->add_option(
      "--column", a.replay.columns,
      "FIELD=NAME where a name is not understood; FIELD: step, loss, grad_norm, lr, "
      "loss_scale, update_norm, skipped");
  command
      ->add_option("--clip", a.replay.clip_at,
                   "The run's clip threshold, for advice; 1 is asked about if not set")
      ->check(CLI::PositiveNumber);
  command->add_option("--multiple", a.replay.multiple, "Of the rolling mean: a spike")
      ->check(CLI::Range(1.01, 1e6))
      ->capture_default_str();
  command->add_option("--html", a.replay.html, "Write a page with plots here");
  command->add_flag("--json", a.json, "Print JSON");
  command->footer(
      std::string("Formats: Megatron-LM and Megatron-DeepSpeed console, llm.c main.log, "
                  "nanoGPT and build-nanogpt text,\nlines of training meters, "
                  "trainer_state.json, JSON lines, CSV and TSV with a header, W&B "
                  "exports,\nTensorBoard event files, gradwarden export and history files; "
                  "overflow lines of DeepSpeed and "
                  "apex.\nExamples:\n  gradwarden replay main.log\n"
                  "  gradwarden replay history.csv --column loss=total_loss\n"
                  "  gradwarden replay trainer_state.json --json | jq '.events[].kind'\n") +
      kExitCodes);
  return command;
}

CLI::App* add_follow(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "follow", "Stream a growing log to the daemon: monitoring with no change to the trainer");
  command->add_option("file", a.follow.file, "Log, of a format that replay reads; may come later")
      ->required();
  command->add_option("--run", a.follow.run, "Name of the run")->required();
  command->add_option("--column", a.follow.columns, "FIELD=NAME, as of replay");
  command->add_option("--until-idle", a.follow.idle_seconds,
                      "End when the log has not grown for so many seconds");
  add_daemon(*command, a);
  command->footer(std::string("Rotation and truncation are followed; Ctrl-C ends.\nExamples:\n"
                              "  gradwarden follow main.log --run llama-7b\n") +
                  kExitCodes);
  return command;
}

CLI::App* add_skiplist(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("skiplist", "The batches of a run's incidents, to leave out on a rerun");
  command->add_option("run", a.skiplist.run, "Run")->required();
  command->add_option("--cause", a.skiplist.cause, "Only of this cause, for example data");
  add_number(*command, "--spikes", a.skiplist.least_spikes, "Only what spiked so often");
  add_common(*command, a,
             "  gradwarden skiplist llama-7b > skip.txt\n"
             "  gradwarden skiplist llama-7b --cause data --spikes 2 --json");
  return command;
}

CLI::App* add_rewind(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "rewind", "The last marked checkpoint that is safely before an incident, and why");
  command->add_option("run", a.rewind.run, "Run")->required();
  add_number(*command, "--event", a.rewind.event, "Of this event; default: the last incident");
  add_number(*command, "--margin", a.rewind.margin, "Steps before the incident, 100 if not set");
  add_common(*command, a, "  gradwarden rewind llama-7b\n  gradwarden rewind llama-7b --json");
  return command;
}

CLI::App* add_compare(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("compare", "Where runs part, and which batches spike in several of them");
  command->add_option("run", a.compare.runs, "RUN or RUN@ATTEMPT; one RUN alone: its attempts")
      ->required();
  command->add_option("--tolerance", a.compare.tolerance, "Losses that differ by less are the same")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  add_common(
      *command, a,
      "  gradwarden compare baseline candidate\n  gradwarden compare llama-7b@a1 llama-7b@a2");
  return command;
}

CLI::App* add_top(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "top", "Runs, their norms and the last events, updating in place; q or Ctrl-C ends");
  command->add_option("--interval", a.top.interval_s, "Seconds between two looks")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  command->add_flag("--once", a.top.once, "Print once and end, as without a terminal");
  add_common(*command, a, "  gradwarden top\n  ssh cluster gradwarden top --once");
  return command;
}

CLI::App* add_silence(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "silence", "Send no alerts of a run for a while; events are found all the same");
  command->add_option("run", a.silence.run, "Run, or a pattern as of a shell");
  command->add_option("--rule", a.silence.kind, "Only of this kind of event, or a pattern");
  command->add_option("--for", a.silence.duration, "How long: 90s, 30m, 2h, 7d")
      ->capture_default_str();
  command->add_option("--comment", a.silence.comment, "Why");
  command->add_flag("--list", a.silence.list, "List the silences");
  add_number(*command, "--remove", a.silence.remove, "End the silence with this number");
  add_common(*command, a,
             "  gradwarden silence llama-7b --rule grad_spike --for 4h\n"
             "  gradwarden silence --list\n  gradwarden silence --remove 3");
  return command;
}

// The run that the command is about; empty if it is about all, or several.
std::string run_of(const Arguments& a) {
  for (const std::string* run : {&a.show.run, &a.watch.run, &a.exported.run, &a.follow.run,
                                 &a.skiplist.run, &a.rewind.run, &a.silence.run}) {
    if (!run->empty()) return *run;
  }
  return {};
}

}  // namespace

std::string default_daemon() {
  const char* set = std::getenv("GRADWARDEN_DAEMON");
  return set != nullptr && *set != '\0' ? set : kDefaultDaemon;
}

ChannelSecurity default_security() {
  ChannelSecurity security;
  take_environment(security);
  return security;
}

void add_daemon(CLI::App& command, Arguments& arguments) {
  command.add_option("--daemon", arguments.daemon,
                     "host:port of gradwardend's gRPC; default: GRADWARDEN_DAEMON or " +
                         std::string(kDefaultDaemon));
  ChannelSecurity& security = arguments.security;
  command.add_flag("--tls", security.tls, "Use TLS with the authorities that this host trusts");
  command.add_option("--ca", security.ca_file,
                     "Use TLS; PEM file of the daemon's authority (or GRADWARDEN_CA_FILE)");
  command.add_option("--cert", security.certificate_file,
                     "Certificate to show, PEM (or GRADWARDEN_CERT)");
  command.add_option("--key", security.key_file, "Its key, PEM (or GRADWARDEN_KEY)");
  command.add_option("--token-file", security.token_file,
                     "File that holds the token (or GRADWARDEN_TOKEN_FILE)");
}

Commands add_commands(CLI::App& app, Arguments& a) {
  Commands commands;
  commands.runs = add_runs(app, a);
  commands.show = add_show(app, a);
  commands.top = add_top(app, a);
  commands.watch = add_watch(app, a);
  commands.exported = add_export(app, a);
  commands.replayed = add_replay(app, a);
  commands.followed = add_follow(app, a);
  commands.compared = add_compare(app, a);
  commands.skipped = add_skiplist(app, a);
  commands.rewound = add_rewind(app, a);
  commands.silenced = add_silence(app, a);
  return commands;
}

void choose_one(Arguments& a) {
  const std::string run = run_of(a);
  if (!run.empty()) a.daemon = choose_daemon(a.daemon, run);
}

std::string contradiction(const Arguments& a) {
  if (split_daemons(a.daemon).size() > 1) {
    return "--daemon or GRADWARDEN_DAEMON names several daemons, and this command is not about one "
           "run; give --daemon with one of " +
           a.daemon;
  }
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

}  // namespace gradwarden::cli
