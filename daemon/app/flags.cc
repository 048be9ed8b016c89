#include "daemon/app/flags.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <sstream>
#include <utility>

#include "daemon/app/exit_codes.h"

namespace gradwarden::app {
namespace {

constexpr char kFooter[] = R"(Examples:
  gradwardend --data-dir /var/lib/gradwarden
  gradwardend --config /etc/gradwarden/gradwardend.yaml
  gradwardend --config gradwardend.yaml --check-config
  gradwardend --grpc-listen 0.0.0.0:7460 --tls-cert tls.crt --tls-key tls.key --token-file tokens
  gradwardend --grpc-listen 127.0.0.1:0 --http-listen 127.0.0.1:0 --ports-file ports.json

HTTP paths: /metrics, /-/healthy, /-/ready; the last two ask nobody for a token or certificate
Signals: SIGTERM and SIGINT answer what was received, commit it and end. SIGHUP reads the
configuration again (tokens, certificates, limits, log level); token and certificate files are also
read again whenever they change.
Exit codes: 0 ended as asked; 2 bad flags or configuration; 3 address in use; 4 data folder unusable;
5 data folder in use by another gradwardend; 6 history of a newer version; 7 history found
damaged while running, the next start sets it aside; 70 internal error)";

int usage_error(const std::string& message) {
  std::cerr << "gradwardend: " << message << "\n";
  return kExitUsage;
}

}  // namespace

absl::StatusOr<Config> read_again(int argc, char** argv) {
  Flags flags;
  std::ostringstream said;
  std::streambuf* const before = std::cerr.rdbuf(said.rdbuf());
  const std::optional<int> code = parse_flags(argc, argv, flags);
  std::cerr.rdbuf(before);
  if (!code) return flags.config;
  std::string text = std::move(said).str();
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return absl::InvalidArgumentError(text);
}

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
  security::TlsFiles tls;
  std::string token_file;
  bool insecure = false;
  cli.add_option("--config", file, "YAML file; gradwardend.example.yaml documents every key");
  cli.add_option("--data-dir", data_dir, "Folder of the history [" + config.data_dir + "]");
  cli.add_option("--grpc-listen", grpc_listen,
                 "Address for trainers and the command line [" + config.grpc_listen + "]");
  cli.add_option("--http-listen", http_listen,
                 "Address for Prometheus and probes [" + config.http_listen + "]");
  cli.add_option("--tls-cert", tls.certificate,
                 "Certificate chain in PEM: serve gRPC and HTTP with TLS");
  cli.add_option("--tls-key", tls.key, "Its key in PEM");
  cli.add_option("--client-ca", tls.client_ca,
                 "Authorities in PEM: clients must show a certificate of one (mutual TLS)");
  cli.add_option("--token-file", token_file,
                 "Ask for bearer tokens: a file of lines SCOPE[,SCOPE...]:TOKEN with the scopes "
                 "write, read and admin");
  cli.add_flag("--allow-insecure-listen", insecure,
               "Allow addresses that other hosts reach, also without TLS or without asking callers "
               "who they are");
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
  if (!tls.certificate.empty()) config.tls.certificate = tls.certificate;
  if (!tls.key.empty()) config.tls.key = tls.key;
  if (!tls.client_ca.empty()) config.tls.client_ca = tls.client_ca;
  if (!token_file.empty()) config.token_file = token_file;
  if (insecure) config.allow_insecure_listen = true;
  absl::Status status = check_config(config);
  if (status.ok() && flags.check_only) status = check_files(config);
  if (!status.ok()) return usage_error(std::string(status.message()));
  return std::nullopt;
}

}  // namespace gradwarden::app
