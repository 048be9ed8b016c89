// From a detector's incident to the event that people read: names, one sentence, what to do.
// Pure functions.
#ifndef GRADWARDEN_DAEMON_INGEST_EVENT_BUILDER_H_
#define GRADWARDEN_DAEMON_INGEST_EVENT_BUILDER_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "daemon/detect/incident.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::ingest {

v1::Event build_event(std::uint64_t id, std::string_view run, std::string_view attempt,
                      const detect::Incident& incident);

// "info", "warning", "critical".
std::string_view severity_name(v1::Severity severity);

// The event in one line of a log.
std::string event_line(const v1::Event& event);

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_EVENT_BUILDER_H_
