// Telling people of events: after their commit, so that they find them in the history; and without
// it while the store fails, because that is no reason not to wake them.
#ifndef GRADWARDEN_DAEMON_INGEST_TELLER_H_
#define GRADWARDEN_DAEMON_INGEST_TELLER_H_

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "daemon/ingest/context.h"

namespace gradwarden::ingest {

// For both completions of an item (see CommitWriter), which the writer's thread alone calls:
// whichever comes first tells, the other does nothing. The context outlives it.
inline std::function<void()> teller(IngestContext& context, std::vector<v1::Event> events) {
  if (events.empty()) return [] {};
  auto left = std::make_shared<std::vector<v1::Event>>(std::move(events));
  return [&context, left] {
    for (const v1::Event& event : *left) context.publish(event);
    left->clear();
  };
}

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_TELLER_H_
