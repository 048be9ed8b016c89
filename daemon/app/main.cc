// gradwardend: serves until SIGTERM or SIGINT.
#include <pthread.h>
#include <signal.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>

#include "daemon/app/daemon.h"
#include "daemon/app/exit_codes.h"
#include "daemon/app/flags.h"
#include "daemon/app/grpc_log.h"

namespace {

using namespace gradwarden::app;

// Written aside and renamed, so that a reader never sees half of it.
bool write_ports_file(const std::string& path, const Daemon& daemon) {
  const std::string aside = path + ".new";
  {
    std::ofstream file(aside);
    file << "{\"grpc\": " << daemon.grpc_port() << ", \"http\": " << daemon.http_port() << "}\n";
    if (!file.flush()) return false;
  }
  return std::rename(aside.c_str(), path.c_str()) == 0;
}

struct Arguments {
  int argc;
  char** argv;
};

// Returns the signal that ends the daemon, or 0 where its history turned out to be damaged.
int serve_until_told(Daemon& daemon, const sigset_t& signals, const Arguments& arguments) {
  const timespec second{1, 0};
  while (!daemon.found_damage()) {
    const int signal = sigtimedwait(&signals, nullptr, &second);
    if (signal == SIGTERM || signal == SIGINT) return signal;
    if (signal == SIGHUP) {
      const absl::StatusOr<Config> config = read_again(arguments.argc, arguments.argv);
      if (config.ok()) {
        daemon.reload(*config);
      } else {
        daemon.refuse_reload(config.status());
      }
    }
    daemon.renew_credentials();
  }
  return 0;
}

int serve(const Flags& flags, const sigset_t& signals, const Arguments& arguments) {
  Daemon daemon(flags.config);
  if (const std::optional<StartError> error = daemon.start()) {
    std::cerr << "gradwardend: " << error->message << "\n";
    return error->exit_code;
  }
  if (!flags.ports_file.empty() && !write_ports_file(flags.ports_file, daemon)) {
    std::cerr << "gradwardend: --ports-file: " << flags.ports_file << " cannot be written\n";
    return kExitUsage;
  }
  const int signal = serve_until_told(daemon, signals, arguments);
  if (signal == 0) {
    spdlog::error("the history is damaged: ending; the next start sets it aside and recovers it");
    daemon.drain();
    return kExitDamaged;
  }
  spdlog::info("received {}: shutting down", signal == SIGTERM ? "SIGTERM" : "SIGINT");
  daemon.drain();
  return kExitOk;
}

}  // namespace

int main(int argc, char** argv) {
  // Blocked before any thread starts, so that only sigwait() sees them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  // A broken connection or a file-size limit is an error to handle, not the end.
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  try {
    Flags flags;
    if (const std::optional<int> code = parse_flags(argc, argv, flags)) return *code;
    if (flags.check_only) {
      std::cout << "configuration is valid\n";
      return kExitOk;
    }
    spdlog::set_default_logger(spdlog::stderr_color_mt("gradwardend"));
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
    spdlog::set_level(spdlog::level::from_str(flags.config.log_level));
    lead_grpc_log_into_ours();
    return serve(flags, signals, {argc, argv});
  } catch (const std::exception& error) {
    std::cerr << "gradwardend: internal error: " << error.what() << "\n";
    return kExitInternal;
  }
}
