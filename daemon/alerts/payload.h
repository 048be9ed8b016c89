// Alerts as Alertmanager's API v2 and generic webhooks take them. Pure.
#ifndef GRADWARDEN_DAEMON_ALERTS_PAYLOAD_H_
#define GRADWARDEN_DAEMON_ALERTS_PAYLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/alerts/alert_groups.h"

namespace gradwarden::alerts {

// The body of POST /api/v2/alerts. A firing alert ends by itself `lifetime_ns` after now unless it
// is sent again. Labels are alertname, run, kind and severity; the rest are annotations.
std::string alertmanager_body(const std::vector<Message>& messages, const std::string& link,
                              std::uint64_t now_ns, std::uint64_t lifetime_ns);

// One object with "alerts", each with all of its fields.
std::string webhook_body(const std::vector<Message>& messages, const std::string& link);

}  // namespace gradwarden::alerts

#endif  // GRADWARDEN_DAEMON_ALERTS_PAYLOAD_H_
