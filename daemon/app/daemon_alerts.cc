// What of Daemon concerns alerts.
#include <chrono>
#include <set>
#include <vector>

#include "daemon/alerts/http_post.h"
#include "daemon/app/daemon.h"
#include "daemon/app/exit_codes.h"
#include "daemon/app/start_parts.h"

namespace gradwarden::app {
namespace {

constexpr std::chrono::milliseconds kPostDeadline{5000};
constexpr std::uint32_t kEventsAtOnce = 1000;

void count_delivery(metrics::SinkMetrics& sink, alerts::Delivery delivery, std::size_t alerts) {
  switch (delivery) {
    case alerts::Delivery::kWaiting:
      sink.waiting = alerts;
      return;
    case alerts::Delivery::kFailed:
      metrics::count(sink.failed, alerts);
      return;
    case alerts::Delivery::kDelivered:
    case alerts::Delivery::kRefused:
      metrics::count(delivery == alerts::Delivery::kDelivered ? sink.delivered : sink.refused,
                     alerts);
      sink.waiting = 0;
      return;
  }
}

}  // namespace

std::optional<StartError> Daemon::build_alerts(store::StoreReader& reader,
                                               std::uint64_t last_event) {
  alerts::AlertOptions options = config_.alerts;
  options.state_file = config_.data_dir + "/alerts.json";
  alerter_ = std::make_unique<alerts::Alerter>(
      options, alerts::AlertSeams{
                   .now_ns = &unix_now_ns,
                   .post =
                       [](const std::string& url, const std::string& body) {
                         return alerts::post_json(url, body, kPostDeadline);
                       },
                   .observe =
                       [this](std::size_t sink, alerts::Delivery delivery, std::size_t count) {
                         count_delivery(metrics_.sinks[sink], delivery, count);
                       }});
  alert_service_ = std::make_unique<alerts::AlertService>(*alerter_, access_, &unix_now_ns);
  // A daemon that never sent alerts does not begin with years of them.
  std::set<std::uint64_t> again = alerter_->open_events();
  std::uint64_t after = alerter_->restored() ? alerter_->last_event_id() : last_event;
  const auto publish = [&](const absl::StatusOr<std::vector<std::string>>& stored) {
    std::uint64_t last = 0;
    v1::Event event;
    for (const std::string& data : *stored) {
      if (!event.ParseFromString(data)) continue;
      last = event.id();
      alerter_->publish(event);
    }
    return last;
  };
  for (const std::uint64_t id : again) {
    const auto stored = reader.events(0, 0, id - 1, 1);
    if (!stored.ok()) return start_error(kExitDataFolder, stored.status());
    // What was told while nothing could be stored is not in the history after a kill.
    if (publish(stored) != id) alerter_->close(id);
  }
  while (after < last_event) {
    const auto stored = reader.events(0, 0, after, kEventsAtOnce);
    if (!stored.ok()) return start_error(kExitDataFolder, stored.status());
    const std::uint64_t last = publish(stored);
    if (last <= after) break;
    after = last;
  }
  alerter_->start(last_event);
  return std::nullopt;
}

}  // namespace gradwarden::app
