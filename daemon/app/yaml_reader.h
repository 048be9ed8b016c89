// Reads sections of a YAML file into variables: each key has a setter that knows what is allowed.
// Internal to app/; one thread.
#ifndef GRADWARDEN_DAEMON_APP_YAML_READER_H_
#define GRADWARDEN_DAEMON_APP_YAML_READER_H_

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "daemon/app/listen.h"

namespace gradwarden::app {

// Thrown by a Reader, so that a setter deep in a section can stop the reading; caught in config.cc.
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

  // A list of some of these names.
  Setter names(const std::string& key, std::set<std::string, std::less<>>& to,
               const std::vector<std::string_view>& known) const {
    return [=, this, &to](const YAML::Node& node) {
      if (!node.IsSequence()) fail(node, key, shown(node), "a list of names");
      to.clear();
      for (const YAML::Node& entry : node) {
        const std::string name = entry.IsScalar() ? entry.Scalar() : "";
        if (std::find(known.begin(), known.end(), name) == known.end()) {
          std::string allowed;
          for (const std::string_view one : known) {
            allowed.append(allowed.empty() ? "" : ", ").append(one);
          }
          fail(entry, key, shown(entry), allowed);
        }
        to.insert(name);
      }
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

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_YAML_READER_H_
