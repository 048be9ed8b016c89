#include "daemon/page/event_cursor.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

namespace gradwarden::page {
namespace {

constexpr std::size_t kMaxEvents = 500;

// Nothing where there is none of this id that can be read.
absl::StatusOr<std::optional<v1::Event>> event_of(store::StoreReader& reader,
                                                  const store::AttemptRow& attempt,
                                                  std::uint64_t id) {
  const auto rows = reader.events(attempt.run_id, attempt.id, id - 1, 1);
  if (!rows.ok()) return rows.status();
  v1::Event event;
  if (rows->empty() || !event.ParseFromString(rows->front()) || event.id() != id) {
    return std::optional<v1::Event>();
  }
  return std::optional(std::move(event));
}

}  // namespace

absl::StatusOr<std::vector<v1::Event>> last_events(store::StoreReader& reader,
                                                   const store::AttemptRow& attempt) {
  std::vector<v1::Event> events;
  std::uint64_t after = 0;
  while (true) {
    const auto rows = reader.events(attempt.run_id, attempt.id, after, kMaxEvents);
    if (!rows.ok()) return rows.status();
    const std::uint64_t before = after;
    for (const std::string& row : *rows) {
      v1::Event event;
      if (!event.ParseFromString(row)) continue;
      after = std::max(after, event.id());
      events.push_back(std::move(event));
    }
    // Page by page: an attempt may have more events than there is memory.
    if (events.size() > kMaxEvents) {
      events.erase(events.begin(), events.end() - static_cast<std::ptrdiff_t>(kMaxEvents));
    }
    // Where all of a page is damaged there is no way on.
    if (rows->size() < kMaxEvents || after == before) return events;
  }
}

void EventCursor::note(const v1::Event& event) {
  after_ = std::max(after_, event.id());
  if (event.has_end_step() || event.id() == 0) {
    open_.erase(event.id());
    return;
  }
  open_[event.id()] = event.revision();
  // The page shows no more events than these.
  if (open_.size() > kMaxEvents) open_.erase(open_.begin());
}

// Of the events that were told before their end, those that say something else by now.
absl::StatusOr<std::vector<v1::Event>> EventCursor::changed(store::StoreReader& reader,
                                                            const store::AttemptRow& attempt) {
  std::vector<v1::Event> changed;
  if (open_.empty()) return changed;
  const auto rows = reader.open_events(attempt.run_id, attempt.id, kMaxEvents);
  if (!rows.ok()) return rows.status();
  std::map<std::uint64_t, v1::Event> still_open;
  for (const std::string& row : *rows) {
    v1::Event event;
    if (event.ParseFromString(row)) still_open[event.id()] = std::move(event);
  }
  const auto told = open_;  // note() changes it
  for (const auto& [id, revision] : told) {
    const auto found = still_open.find(id);
    std::optional<v1::Event> event;
    if (found != still_open.end()) {
      event = std::move(found->second);
    } else {
      // It has ended, or more are open than were read.
      auto alone = event_of(reader, attempt, id);
      if (!alone.ok()) return alone.status();
      event = *std::move(alone);
    }
    if (!event) {
      open_.erase(id);
    } else if (event->revision() != revision) {
      note(*event);
      changed.push_back(*std::move(event));
    }
  }
  return changed;
}

absl::StatusOr<std::vector<v1::Event>> EventCursor::news(store::StoreReader& reader,
                                                         const store::AttemptRow& attempt) {
  if (attempt_id_ != attempt.id) {
    *this = EventCursor();
    attempt_id_ = attempt.id;
    absl::StatusOr<std::vector<v1::Event>> last = last_events(reader, attempt);
    if (!last.ok()) return last;
    for (const v1::Event& event : *last) note(event);
    return last;
  }
  absl::StatusOr<std::vector<v1::Event>> events = changed(reader, attempt);
  if (!events.ok()) return events;
  // More than these come at the next turn.
  const auto rows = reader.events(attempt.run_id, attempt.id, after_, kMaxEvents);
  if (!rows.ok()) return rows.status();
  for (const std::string& row : *rows) {
    v1::Event event;
    if (!event.ParseFromString(row)) continue;
    note(event);
    events->push_back(std::move(event));
  }
  return events;
}

}  // namespace gradwarden::page
