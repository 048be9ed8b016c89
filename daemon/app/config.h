// The daemon's configuration: one struct with defaults, read from YAML. gradwardend.example.yaml
// documents every key. A wrong key or value is one line that names file, line, key, value and what
// is allowed.
#ifndef GRADWARDEN_DAEMON_APP_CONFIG_H_
#define GRADWARDEN_DAEMON_APP_CONFIG_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/alerts/alerter.h"
#include "daemon/http/http_server.h"
#include "daemon/ingest/context.h"
#include "daemon/security/tls_store.h"
#include "daemon/store/retention.h"
#include "daemon/store/sqlite_store.h"

namespace gradwarden::app {

struct Config {
  std::string data_dir = "gradwarden-data";
  std::string log_level = "info";

  std::string grpc_listen = "127.0.0.1:7460";
  std::string http_listen = "127.0.0.1:7461";
  bool allow_insecure_listen = false;
  http::HttpServerOptions http;
  std::uint32_t grpc_handshake_seconds = 10;  // for a new connection to say what it wants
  std::uint32_t grpc_idle_seconds = 300;      // a connection without a call is closed after it

  security::TlsFiles tls;
  std::string token_file = {};  // empty: nobody is asked for a token

  store::Durability durability = store::Durability::kProcess;
  std::uint32_t max_age_days = 400;  // of segments; 0: for ever
  std::uint32_t prune_seconds = 60;  // from one pass of the retention to the next
  store::RetentionOptions retention{.limits = {.max_age_seconds = 400 * std::uint64_t{86400}}};
  ingest::IngestOptions ingest;

  std::uint32_t query_threads = 2;
  std::uint32_t query_max_waiting = 256;
  std::uint32_t query_max_watchers = 64;
  std::uint32_t query_watch_queue = 1024;

  std::uint32_t metrics_max_runs = 256;
  std::uint64_t metrics_retention_seconds = 3600;

  alerts::AlertOptions alerts;  // without sinks none is sent

  std::uint32_t drain_seconds = 8;  // how long a shutdown may wait for answers and commits
};

// Reads `path` over what `config` holds.
absl::Status load_config(const std::string& path, Config& config);
// The same from text; `name` stands for the file in messages.
absl::Status parse_config(const std::string& text, const std::string& name, Config& config);

// Rules over several settings, flags included.
absl::Status check_config(const Config& config);
// The same, and that the files named can be used.
absl::Status check_files(const Config& config);

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_CONFIG_H_
