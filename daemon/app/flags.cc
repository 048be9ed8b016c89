#include "daemon/app/flags.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "daemon/app/exit_codes.h"

namespace gradwarden::app {
namespace {

constexpr char kFooter[] = R"(Examples:
  gradwardend --data-dir /var/lib/gradwarden
  gradwardend --config /etc/gradwarden/gradwardend.yaml
  gradwardend --config gradwardend.yaml --check-config
  gradwardend --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --ports-file ports.json

HTTP paths: /metrics, /-/healthy, /-/ready
Signals: SIGTERM and SIGINT answer what was received, commit it and end.
Exit codes: 0 ended as asked; 2 bad flags or configuration; 3 address in use; 4 data folder unusable;
5 data folder in use by another gradwardend; 6 history of a newer version; 70 internal error)";

int usage_error(const std::string& message) {
  std::cerr << "gradwardend: " << message << "\n";
  return kExitUsage;
}

}  // namespace

std::optional<int> parse_flags(int argc, char** argv, Flags& flags) {
  CLI::App cli(
      "Watches training runs: takes their reports over gRPC, finds spikes and non-finite "
      "gradients, keeps history and serves metrics to Prometheus.",
      "gradwardend");
  cli.footer(kFooter);
  cli.set_version_flag("--version", "gradwardend " GRADWARDEN_VERSION);
  Config& config = flags.config;
  std::string file;
  std::string data_dir;
  std::string grpc_listen;
  std::string http_listen;
  std::string log_level;
  bool insecure = false;
  cli.add_option("--config", file, "YAML file; gradwardend.example.yaml documents every key");
  cli.add_option("--data-dir", data_dir, "Folder of the history [" + config.data_dir + "]");
  cli.add_option("--grpc-listen", grpc_listen,
                 "Address for trainers and the command line [" + config.grpc_listen + "]");
  cli.add_option("--http-listen", http_listen,
                 "Address for Prometheus and probes [" + config.http_listen + "]");
  cli.add_flag("--allow-insecure-listen", insecure,
               "Allow addresses that other hosts reach, without encryption or authentication");
  cli.add_option("--log-level", log_level, "trace, debug, info, warn, error or off [info]")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}));
  cli.add_option("--ports-file", flags.ports_file,
                 "Write the ports in use to this file as JSON, once ready");
  cli.add_flag("--check-config", flags.check_only, "Check flags and configuration, then end");
  try {
    cli.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) {
      cli.exit(error);
      return kExitOk;
    }
    return usage_error(std::string(error.what()) + "; --help shows what is allowed");
  }
  if (!file.empty()) {
    if (absl::Status status = load_config(file, config); !status.ok()) {
      return usage_error(std::string(status.message()));
    }
  }
  if (!data_dir.empty()) config.data_dir = data_dir;
  if (!grpc_listen.empty()) config.grpc_listen = grpc_listen;
  if (!http_listen.empty()) config.http_listen = http_listen;
  if (!log_level.empty()) config.log_level = log_level;
  if (insecure) config.allow_insecure_listen = true;
  if (absl::Status status = check_config(config); !status.ok()) {
    return usage_error(std::string(status.message()));
  }
  return std::nullopt;
}

}  // namespace gradwarden::app
