// The saved form of AlertGroups.
#include <google/protobuf/util/json_util.h>

#include <nlohmann/json.hpp>

#include "daemon/alerts/alert_groups.h"

namespace gradwarden::alerts {
namespace {

using Json = nlohmann::json;

constexpr int kVersion = 1;

}  // namespace

std::string AlertGroups::save() const {
  Json out = {
      {"version", kVersion},           {"sinks", sinks_},         {"last_event_id", last_event_id_},
      {"next_silence", next_silence_}, {"groups", Json::array()}, {"silences", Json::array()}};
  for (const auto& [key, group] : groups_) {
    std::string event;
    if (!google::protobuf::util::MessageToJsonString(group.newest, &event).ok()) continue;
    Json one = {{"key", key},           {"event", event},
                {"count", group.count}, {"begin", group.begin_ns},
                {"end", group.end_ns},  {"v", group.version},
                {"open", group.open},   {"told", Json::array()}};
    for (const Told& told : group.told) {
      one["told"].push_back({told.version, told.at_ns, told.firing});
    }
    out["groups"].push_back(std::move(one));
  }
  for (const Silence& silence : silences_) {
    out["silences"].push_back({{"id", silence.id},
                               {"run", silence.run},
                               {"kind", silence.kind},
                               {"until", silence.until_ns},
                               {"comment", silence.comment}});
  }
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

bool AlertGroups::restore(const std::string& text) {
  try {
    const Json in = Json::parse(text);
    if (in.at("version") != kVersion) return false;
    const bool same_sinks = in.at("sinks") == sinks_;
    std::map<std::string, Group> groups;
    for (const Json& one : in.at("groups")) {
      Group group;
      const auto event = one.at("event").get<std::string>();
      if (!google::protobuf::util::JsonStringToMessage(event, &group.newest).ok()) return false;
      group.count = one.at("count");
      group.begin_ns = one.at("begin");
      group.end_ns = one.at("end");
      group.version = one.at("v");
      group.open = one.at("open").get<std::map<std::uint64_t, std::uint32_t>>();
      for (const Json& told : one.at("told")) group.told.push_back({told[0], told[1], told[2]});
      // Other sinks were told nothing.
      if (!same_sinks || group.told.size() != sinks_) group.told.assign(sinks_, {});
      groups.emplace(one.at("key"), std::move(group));
    }
    std::vector<Silence> silences;
    for (const Json& one : in.at("silences")) {
      silences.push_back(
          {one.at("id"), one.at("run"), one.at("kind"), one.at("until"), one.at("comment")});
    }
    last_event_id_ = in.at("last_event_id");
    next_silence_ = in.at("next_silence");
    groups_ = std::move(groups);
    silences_ = std::move(silences);
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

}  // namespace gradwarden::alerts
