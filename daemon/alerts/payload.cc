#include "daemon/alerts/payload.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace gradwarden::alerts {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kMillisecondNs = 1'000'000;

// "2026-11-22T18:03:11.250Z"
std::string rfc3339(std::uint64_t unix_ns) {
  const auto seconds = static_cast<std::time_t>(unix_ns / kSecondNs);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[64];
  const std::size_t size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  std::snprintf(text + size, sizeof text - size, ".%03dZ",
                static_cast<int>(unix_ns % kSecondNs / kMillisecondNs));
  return text;
}

std::string severity_of(const v1::Event& event) {
  return event.severity() == v1::SEVERITY_CRITICAL  ? "critical"
         : event.severity() == v1::SEVERITY_WARNING ? "warning"
                                                    : "info";
}

std::string text_of(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

// "{run}" in the link stands for the run.
std::string link_of(const std::string& link, const v1::Event& event) {
  const std::size_t at = link.find("{run}");
  return at == std::string::npos ? link : std::string(link).replace(at, 5, event.run());
}

Json annotations_of(const Alert& alert, const std::string& link) {
  const v1::Event& event = alert.event;
  Json out = {{"summary", event.run() + ": " + event.message()},
              {"attempt", event.attempt()},
              {"step", std::to_string(event.peak_step())},
              {"start_step", std::to_string(event.start_step())},
              {"signal", event.signal()},
              {"value", text_of(event.value())},
              {"baseline", text_of(event.baseline())},
              {"cause", event.cause()},
              {"action", event.action()},
              {"events", std::to_string(alert.count)},
              {"event", std::to_string(event.id())}};
  if (!event.group().empty()) out["group"] = event.group();
  if (!event.tensor().empty()) out["tensor"] = event.tensor();
  if (event.has_rank()) out["rank"] = std::to_string(event.rank());
  std::string evidence;
  for (const std::string& one : event.evidence()) evidence += (evidence.empty() ? "" : "; ") + one;
  if (!evidence.empty()) out["evidence"] = evidence;
  if (!link.empty()) out["link"] = link_of(link, event);
  return out;
}

Json labels_of(const v1::Event& event) {
  return {{"alertname", "gradwarden_" + event.kind()},
          {"run", event.run()},
          {"kind", event.kind()},
          {"severity", severity_of(event)}};
}

std::string dumped(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string alertmanager_body(const std::vector<Message>& messages, const std::string& link,
                              std::uint64_t now_ns, std::uint64_t lifetime_ns) {
  Json out = Json::array();
  for (const Message& message : messages) {
    const Alert& alert = message.alert;
    Json one = {{"labels", labels_of(alert.event)},
                {"annotations", annotations_of(alert, link)},
                {"startsAt", rfc3339(alert.begin_ns)},
                {"endsAt", rfc3339(alert.resolved ? alert.end_ns : now_ns + lifetime_ns)}};
    if (!link.empty()) one["generatorURL"] = link_of(link, alert.event);
    out.push_back(std::move(one));
  }
  return dumped(out);
}

std::string webhook_body(const std::vector<Message>& messages, const std::string& link) {
  Json out = {{"version", "1"}, {"alerts", Json::array()}};
  for (const Message& message : messages) {
    const Alert& alert = message.alert;
    Json one = annotations_of(alert, link);
    one.update(labels_of(alert.event));
    one["status"] = alert.resolved ? "resolved" : "firing";
    one["started"] = rfc3339(alert.begin_ns);
    if (alert.resolved) one["ended"] = rfc3339(alert.end_ns);
    out["alerts"].push_back(std::move(one));
  }
  return dumped(out);
}

}  // namespace gradwarden::alerts
