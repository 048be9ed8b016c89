#include "daemon/app/config.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <utility>

#include "daemon/app/listen.h"

namespace gradwarden::app {
namespace {

// Thrown inside this file only, so that a setter deep in a section can stop the reading.
struct BadConfig {
  std::string message;
};

using Setter = std::function<void(const YAML::Node&)>;
using Keys = std::map<std::string, Setter>;

// Reads one file: knows its name and where in it we are.
class Reader {
 public:
  explicit Reader(std::string name) : name_(std::move(name)) {}

  [[noreturn]] void fail(const YAML::Node& at, const std::string& key, const std::string& value,
                         const std::string& allowed) const {
    throw BadConfig{name_ + ":" + std::to_string(at.Mark().line + 1) + ": " + key + ": " + value +
                    ", allowed is " + allowed};
  }

  void section(const YAML::Node& node, const std::string& prefix, const Keys& keys) const {
    if (node.IsNull()) return;
    if (!node.IsMap()) fail(node, prefix.empty() ? "file" : prefix, shown(node), "a map of keys");
    for (const auto& item : node) {
      const auto key = item.first.as<std::string>("");
      const auto found = keys.find(key);
      std::string path = prefix;
      if (!path.empty()) path += '.';
      path += key;
      if (found == keys.end()) {
        std::string known;
        for (const auto& [name, setter] : keys) known += (known.empty() ? "" : ", ") + name;
        fail(item.first, path, "an unknown key", known);
      }
      found->second(item.second);
    }
  }

  template <typename Integer>
  Setter integer(const std::string& key, Integer& to, std::uint64_t low, std::uint64_t high) const {
    return [=, this, &to](const YAML::Node& node) {
      std::uint64_t value = 0;
      const bool negative = node.IsScalar() && node.Scalar().rfind('-', 0) == 0;
      if (negative || !node.IsScalar() || !YAML::convert<std::uint64_t>::decode(node, value) ||
          value < low || value > high) {
        fail(node, key, shown(node),
             "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
      }
      to = static_cast<Integer>(value);
    };
  }

  Setter real(const std::string& key, double& to, double above, double high) const {
    return [=, this, &to](const YAML::Node& node) {
      double value = 0;
      if (!node.IsScalar() || !YAML::convert<double>::decode(node, value) || !(value > above) ||
          !(value <= high)) {
        std::ostringstream allowed;
        allowed << "a number above " << above << ", at most " << high;
        fail(node, key, shown(node), allowed.str());
      }
      to = value;
    };
  }

  Setter text(const std::string& key, std::string& to) const {
    return [=, this, &to](const YAML::Node& node) {
      if (!node.IsScalar() || node.Scalar().empty()) fail(node, key, shown(node), "a text");
      to = node.Scalar();
    };
  }

  Setter boolean(const std::string& key, bool& to) const {
    return [=, this, &to](const YAML::Node& node) {
      bool value = false;
      if (!node.IsScalar() || !YAML::convert<bool>::decode(node, value)) {
        fail(node, key, shown(node), "true or false");
      }
      to = value;
    };
  }

  // One of a few words.
  Setter word(const std::string& key,
              const std::map<std::string, std::function<void()>>& words) const {
    return [=, this](const YAML::Node& node) {
      const auto found = node.IsScalar() ? words.find(node.Scalar()) : words.end();
      if (found == words.end()) {
        std::string allowed;
        for (const auto& [word, action] : words) allowed += (allowed.empty() ? "" : ", ") + word;
        fail(node, key, shown(node), allowed);
      }
      found->second();
    };
  }

  Setter address(const std::string& key, std::string& to) const {
    return [=, this, &to](const YAML::Node& node) {
      const std::string value = node.IsScalar() ? node.Scalar() : shown(node);
      if (const auto parsed = parse_address(value); !parsed.ok()) {
        throw BadConfig{name_ + ":" + std::to_string(node.Mark().line + 1) + ": " + key + ": " +
                        std::string(parsed.status().message())};
      }
      to = value;
    };
  }

  static std::string shown(const YAML::Node& node) {
    if (node.IsScalar()) return "\"" + node.Scalar() + "\"";
    return node.IsMap() ? "a map" : node.IsSequence() ? "a list" : "nothing";
  }

 private:
  const std::string name_;
};

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
      {"store", nested("store", {{"durability", reader.word("store.durability", durabilities)}})},
      {"grpc", nested("grpc", {{"listen", reader.address("grpc.listen", config.grpc_listen)},
                               {"max_streams", reader.integer("grpc.max_streams",
                                                              ingest.max_streams, 1, 1'000'000)}})},
      {"http",
       nested("http", {{"listen", reader.address("http.listen", config.http_listen)},
                       {"threads", reader.integer("http.threads", config.http.threads, 1, 64)},
                       {"max_connections", reader.integer("http.max_connections",
                                                          config.http.max_connections, 4, 100'000)},
                       {"max_connections_per_address",
                        reader.integer("http.max_connections_per_address",
                                       config.http.max_connections_per_address, 1, 100'000)},
                       {"idle_timeout_seconds",
                        reader.integer("http.idle_timeout_seconds",
                                       config.http.idle_timeout_seconds, 1, 3600)}})},
      {"ingest",
       nested("ingest", {{"workers", reader.integer("ingest.workers", ingest.workers, 0, 1024)},
                         {"queue_bytes", reader.integer("ingest.queue_bytes", ingest.queue_bytes,
                                                        8 * kMega, std::uint64_t{1} << 40)},
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
      {"detect", [&reader, &config](const YAML::Node& node) { read_detect(reader, node, config); }},
  };
}

}  // namespace

absl::Status parse_config(const std::string& text, const std::string& name, Config& config) {
  try {
    const Reader reader(name);
    Config parsed = config;
    reader.section(YAML::Load(text), "", top_keys(reader, parsed));
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

absl::Status check_config(const Config& config) {
  const std::pair<const char*, const std::string*> listeners[] = {
      {"grpc.listen", &config.grpc_listen}, {"http.listen", &config.http_listen}};
  for (const auto& [key, text] : listeners) {
    const absl::StatusOr<Address> address = parse_address(*text);
    if (!address.ok()) {
      return absl::InvalidArgumentError(std::string(key) + ": " +
                                        std::string(address.status().message()));
    }
    if (!address->loopback() && !config.allow_insecure_listen) {
      return absl::InvalidArgumentError(
          std::string(key) + ": " + *text +
          " is reachable from other hosts without encryption or authentication, allowed is a "
          "loopback address, or any with --allow-insecure-listen");
    }
  }
  return absl::OkStatus();
}

}  // namespace gradwarden::app
