#include "daemon/app/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "daemon/app/listen.h"
#include "daemon/app/yaml_reader.h"
#include "daemon/security/access.h"

namespace gradwarden::app {
namespace {

Keys detector_keys(const Reader& reader, const std::string& prefix,
                   detect::DetectorOptions& options) {
  constexpr double kMaxMultiple = 1e6;
  return {
      {"multiple", reader.real(prefix + "multiple", options.spike.multiple, 1, kMaxMultiple)},
      {"window", reader.integer(prefix + "window", options.spike.window, 1, kernels::kMaxWindow)},
      {"warmup", reader.integer(prefix + "warmup", options.spike.warmup, 1, kernels::kMaxWindow)},
      {"level_shift_after",
       reader.integer(prefix + "level_shift_after", options.spike.level_shift_after, 2,
                      kernels::kMaxLevelShiftAfter)},
      {"quiet_steps", reader.integer(prefix + "quiet_steps", options.quiet_steps, 1, 1'000'000)},
      {"off", reader.names(prefix + "off", options.off, detect::rule_names())},
      {"vanishing_below", reader.real(prefix + "vanishing_below", options.vanishing.below, 0, 1)},
      {"vanishing_after",
       reader.integer(prefix + "vanishing_after", options.vanishing.after, 1, 1'000'000)},
      {"collapse_factor",
       reader.real(prefix + "collapse_factor", options.collapse.factor, 1, 1e12)},
      {"clip_rate_high", reader.real(prefix + "clip_rate_high", options.clip_rate.high, 0, 1)},
      {"clip_never_after",
       reader.integer(prefix + "clip_never_after", options.clip_rate.never_after, 1,
                      std::uint64_t{1} << 31)},
      {"divergence_rise", reader.real(prefix + "divergence_rise", options.divergence.rise, 1, 1e6)},
      {"overflow_burst",
       reader.integer(prefix + "overflow_burst", options.loss_scale.burst, 2, 1000)},
      {"overflow_burst_steps", reader.integer(prefix + "overflow_burst_steps",
                                              options.loss_scale.burst_steps, 2, 1'000'000)},
      {"group_factor", reader.real(prefix + "group_factor", options.group.factor, 1, 1e6)},
      {"stall_seconds", reader.real(prefix + "stall_seconds", options.stall.least_seconds, 0, 1e6)},
      {"stall_periods", reader.real(prefix + "stall_periods", options.stall.periods, 1, 1e6)},
      {"rank_seconds", reader.real(prefix + "rank_seconds", options.stall.rank_seconds, 0, 1e6)},
  };
}

void check_detector(const Reader& reader, const YAML::Node& node, const std::string& prefix,
                    const detect::DetectorOptions& options) {
  if (options.spike.warmup > options.spike.window) {
    reader.fail(node, prefix + "warmup", std::to_string(options.spike.warmup),
                "at most window, which is " + std::to_string(options.spike.window));
  }
}

void read_runs(const Reader& reader, const YAML::Node& node, Config& config) {
  if (!node.IsSequence()) reader.fail(node, "detect.runs", Reader::shown(node), "a list");
  config.ingest.detector_overrides.clear();
  for (const YAML::Node& entry : node) {
    std::string pattern;
    detect::DetectorOptions options = config.ingest.detector;
    Keys keys = detector_keys(reader, "detect.runs.", options);
    keys["match"] = reader.text("detect.runs.match", pattern);
    reader.section(entry, "detect.runs", keys);
    if (pattern.empty())
      reader.fail(entry, "detect.runs.match", "nothing", "a pattern as of a shell");
    check_detector(reader, entry, "detect.runs.", options);
    config.ingest.detector_overrides.emplace_back(pattern, options);
  }
}

void read_detect(const Reader& reader, const YAML::Node& node, Config& config) {
  Keys keys = detector_keys(reader, "detect.", config.ingest.detector);
  // Overrides start from the settings above them, wherever they stand in the file.
  keys["runs"] = [](const YAML::Node&) {};
  reader.section(node, "detect", keys);
  check_detector(reader, node, "detect.", config.ingest.detector);
  if (node.IsMap() && node["runs"]) read_runs(reader, node["runs"], config);
}

void read_sinks(const Reader& reader, const YAML::Node& node, alerts::AlertOptions& options) {
  if (!node.IsSequence()) reader.fail(node, "alerts.sinks", Reader::shown(node), "a list");
  options.sinks.clear();
  for (const YAML::Node& entry : node) {
    alerts::SinkOptions sink;
    const std::map<std::string, std::function<void()>> types = {
        {"alertmanager", [&sink] { sink.type = alerts::SinkType::kAlertmanager; }},
        {"webhook", [&sink] { sink.type = alerts::SinkType::kWebhook; }}};
    reader.section(entry, "alerts.sinks",
                   {{"type", reader.word("alerts.sinks.type", types)},
                    {"url", reader.text("alerts.sinks.url", sink.url)}});
    if (sink.url.rfind("http://", 0) != 0 && sink.url.rfind("https://", 0) != 0) {
      reader.fail(entry, "alerts.sinks.url", "\"" + sink.url + "\"", "http:// or https://");
    }
    options.sinks.push_back(sink);
  }
}

void read_alerts(const Reader& reader, const YAML::Node& node, alerts::AlertOptions& options) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  std::uint64_t interval = options.grouping.interval_ns / kSecond;
  std::uint64_t repeat = options.grouping.repeat_ns / kSecond;
  const std::map<std::string, std::function<void()>> severities = {
      {"info", [&options] { options.grouping.least = v1::SEVERITY_INFO; }},
      {"warning", [&options] { options.grouping.least = v1::SEVERITY_WARNING; }},
      {"critical", [&options] { options.grouping.least = v1::SEVERITY_CRITICAL; }}};
  reader.section(
      node, "alerts",
      {{"severity", reader.word("alerts.severity", severities)},
       {"interval_seconds", reader.integer("alerts.interval_seconds", interval, 1, 86400)},
       {"repeat_seconds", reader.integer("alerts.repeat_seconds", repeat, 1, 31'622'400)},
       {"link", reader.text("alerts.link", options.link)},
       {"sinks", [&](const YAML::Node& sinks) { read_sinks(reader, sinks, options); }}});
  options.grouping.interval_ns = interval * kSecond;
  options.grouping.repeat_ns = repeat * kSecond;
}

Keys top_keys(const Reader& reader, Config& config) {
  const auto nested = [&reader](const std::string& name, Keys keys) {
    return [&reader, name, keys = std::move(keys)](const YAML::Node& node) {
      reader.section(node, name, keys);
    };
  };
  std::map<std::string, std::function<void()>> levels;
  for (const char* level : {"trace", "debug", "info", "warn", "error", "off"}) {
    levels[level] = [&config, level] { config.log_level = level; };
  }
  const std::map<std::string, std::function<void()>> durabilities = {
      {"process", [&config] { config.durability = store::Durability::kProcess; }},
      {"power", [&config] { config.durability = store::Durability::kPower; }}};
  ingest::IngestOptions& ingest = config.ingest;
  constexpr std::uint64_t kMega = 1 << 20;
  return {
      {"data_dir", reader.text("data_dir", config.data_dir)},
      {"drain_seconds", reader.integer("drain_seconds", config.drain_seconds, 1, 3600)},
      {"allow_insecure_listen",
       reader.boolean("allow_insecure_listen", config.allow_insecure_listen)},
      {"log", nested("log", {{"level", reader.word("log.level", levels)}})},
      {"store",
       nested(
           "store",
           {{"durability", reader.word("store.durability", durabilities)},
            {"max_age_days", reader.integer("store.max_age_days", config.max_age_days, 0, 36500)},
            {"max_bytes", reader.integer("store.max_bytes", config.retention.limits.max_bytes, 0,
                                         std::uint64_t{1} << 50)},
            {"protect_seconds",
             reader.integer("store.protect_seconds", config.retention.protected_seconds, 1,
                            std::uint64_t{86400} * 366)},
            {"prune_seconds",
             reader.integer("store.prune_seconds", config.prune_seconds, 1, 86400)}})},
      {"grpc",
       nested(
           "grpc",
           {{"listen", reader.address("grpc.listen", config.grpc_listen)},
            {"max_streams", reader.integer("grpc.max_streams", ingest.max_streams, 1, 1'000'000)},
            {"handshake_timeout_seconds", reader.integer("grpc.handshake_timeout_seconds",
                                                         config.grpc_handshake_seconds, 1, 3600)},
            {"idle_timeout_seconds",
             reader.integer("grpc.idle_timeout_seconds", config.grpc_idle_seconds, 1, 86400)}})},
      {"security",
       nested("security",
              {{"tls_certificate", reader.text("security.tls_certificate", config.tls.certificate)},
               {"tls_key", reader.text("security.tls_key", config.tls.key)},
               {"client_ca", reader.text("security.client_ca", config.tls.client_ca)},
               {"token_file", reader.text("security.token_file", config.token_file)}})},
      {"http",
       nested(
           "http",
           {{"listen", reader.address("http.listen", config.http_listen)},
            {"threads", reader.integer("http.threads", config.http.threads, 1, 64)},
            {"max_connections",
             reader.integer("http.max_connections", config.http.max_connections, 4, 100'000)},
            {"max_streams", reader.integer("http.max_streams", config.http.max_streams, 1, 10'000)},
            {"max_connections_per_address",
             reader.integer("http.max_connections_per_address",
                            config.http.max_connections_per_address, 1, 100'000)},
            {"idle_timeout_seconds", reader.integer("http.idle_timeout_seconds",
                                                    config.http.idle_timeout_seconds, 1, 3600)},
            {"request_timeout_seconds",
             reader.integer("http.request_timeout_seconds", config.http.request_timeout_seconds, 1,
                            3600)},
            {"answer_timeout_seconds",
             reader.integer("http.answer_timeout_seconds", config.http.answer_timeout_seconds, 1,
                            3600)}})},
      {"ingest",
       nested("ingest", {{"workers", reader.integer("ingest.workers", ingest.workers, 0, 1024)},
                         {"queue_bytes", reader.integer("ingest.queue_bytes", ingest.queue_bytes,
                                                        8 * kMega, std::uint64_t{1} << 40)},
                         {"memory_bytes", reader.integer("ingest.memory_bytes", ingest.memory_bytes,
                                                         32 * kMega, std::uint64_t{1} << 40)},
                         {"stream_window",
                          reader.integer("ingest.stream_window", ingest.stream_window, 1, 1024)},
                         {"max_runs",
                          reader.integer("ingest.max_runs", ingest.max_runs, 1, 1'000'000'000)}})},
      {"query",
       nested("query", {{"threads", reader.integer("query.threads", config.query_threads, 1, 64)},
                        {"max_waiting",
                         reader.integer("query.max_waiting", config.query_max_waiting, 1, 100'000)},
                        {"max_watchers", reader.integer("query.max_watchers",
                                                        config.query_max_watchers, 1, 100'000)},
                        {"watch_queue", reader.integer("query.watch_queue",
                                                       config.query_watch_queue, 1, 1'000'000)}})},
      {"metrics",
       nested("metrics", {{"max_runs",
                           reader.integer("metrics.max_runs", config.metrics_max_runs, 1, 100'000)},
                          {"retention_seconds", reader.integer("metrics.retention_seconds",
                                                               config.metrics_retention_seconds, 1,
                                                               std::uint64_t{1} << 32)}})},
      {"alerts",
       [&reader, &config](const YAML::Node& node) { read_alerts(reader, node, config.alerts); }},
      {"detect", [&reader, &config](const YAML::Node& node) { read_detect(reader, node, config); }},
  };
}

}  // namespace

absl::Status parse_config(const std::string& text, const std::string& name, Config& config) {
  try {
    const Reader reader(name);
    Config parsed = config;
    reader.section(YAML::Load(text), "", top_keys(reader, parsed));
    parsed.retention.limits.max_age_seconds = parsed.max_age_days * std::uint64_t{86400};
    parsed.retention.interval = std::chrono::seconds(parsed.prune_seconds);
    config = parsed;
    return absl::OkStatus();
  } catch (const BadConfig& bad) {
    return absl::InvalidArgumentError(bad.message);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(name + ":" + std::to_string(error.mark.line + 1) +
                                      ": not YAML: " + error.msg);
  }
}

absl::Status load_config(const std::string& path, Config& config) {
  std::ifstream file(path);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf() || file.peek() == std::ifstream::traits_type::eof())) {
    return absl::InvalidArgumentError("configuration " + path +
                                      " cannot be read: " + std::strerror(errno));
  }
  return parse_config(text.str(), path, config);
}

namespace {

// What other hosts reach must not be readable on the way, nor open to everybody.
absl::Status check_reachable(const std::string& key, const std::string& address,
                             const Config& config) {
  const char* fault = nullptr;
  if (config.tls.certificate.empty()) {
    fault =
        "in clear text, allowed is a loopback address, or a certificate "
        "(security.tls_certificate and tls_key, --tls-cert and --tls-key)";
  } else if (config.token_file.empty() && config.tls.client_ca.empty()) {
    fault =
        "and asks nobody who he is, allowed is a loopback address, or tokens "
        "(security.token_file, --token-file) or client certificates (security.client_ca, "
        "--client-ca)";
  }
  if (fault == nullptr || config.allow_insecure_listen) return absl::OkStatus();
  return absl::InvalidArgumentError(key + ": " + address + " is reachable from other hosts " +
                                    fault + ", or the risk taken with --allow-insecure-listen");
}

}  // namespace

absl::Status check_config(const Config& config) {
  if (config.tls.certificate.empty() != config.tls.key.empty()) {
    return absl::InvalidArgumentError(
        "security.tls_certificate and security.tls_key belong together, but only one is given");
  }
  if (!config.tls.client_ca.empty() && config.tls.certificate.empty()) {
    return absl::InvalidArgumentError(
        "security.client_ca asks clients for certificates, which needs security.tls_certificate");
  }
  const std::pair<const char*, const std::string*> listeners[] = {
      {"grpc.listen", &config.grpc_listen}, {"http.listen", &config.http_listen}};
  for (const auto& [key, text] : listeners) {
    const absl::StatusOr<Address> address = parse_address(*text);
    if (!address.ok()) {
      return absl::InvalidArgumentError(std::string(key) + ": " +
                                        std::string(address.status().message()));
    }
    if (address->loopback()) continue;
    if (absl::Status status = check_reachable(key, *text, config); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status check_files(const Config& config) {
  metrics::DaemonMetrics unused;
  security::Access access(unused);
  if (absl::Status status = access.load(config.token_file); !status.ok()) return status;
  if (config.tls.certificate.empty()) return absl::OkStatus();
  return security::TlsStore::open(config.tls, unused).status();
}

}  // namespace gradwarden::app
