// What the web page asks for, as JSON texts: never more points than a screen can show, with every
// extreme kept. Pure apart from the reader; used on a reader's thread.
//
// Numbers that are not finite are null. Columns are arrays of equal length, one entry per point.
#ifndef GRADWARDEN_DAEMON_PAGE_PAGE_DATA_H_
#define GRADWARDEN_DAEMON_PAGE_PAGE_DATA_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/page/event_cursor.h"
#include "daemon/store/store.h"

namespace gradwarden::page {

struct Range {
  std::string run;
  std::string attempt;  // "": the latest
  std::uint64_t first = 0;
  std::uint64_t last = 0;  // 0: to the end
  std::uint32_t points = 1000;
};

// All runs with what tells a healthy one from an ill one, the one that reported last first.
absl::StatusOr<std::string> runs_json(store::StoreReader& reader);
// One run: its attempts, settings of its guard, checkpoints.
absl::StatusOr<std::string> run_json(store::StoreReader& reader, const std::string& run);
// Grad norm, loss and the rest over steps: every step where they are few, else points with minima
// and maxima, and the learning rate and threshold at some of the steps.
absl::StatusOr<std::string> history_json(store::StoreReader& reader, const Range& range);
// The events of an attempt, the last ones.
absl::StatusOr<std::string> events_json(store::StoreReader& reader, const Range& range);
// Those that are new or changed since the cursor's last turn, which goes on; "" if none.
absl::StatusOr<std::string> new_events_json(store::StoreReader& reader, const Range& range,
                                            EventCursor& cursor);
// The norms of the groups at some of the steps, those of events' peaks among them: a row per group.
absl::StatusOr<std::string> groups_json(store::StoreReader& reader, const Range& range);
// The norms of the ranks' own gradients and of their shards, likewise; of many ranks those that lay
// furthest from the median.
absl::StatusOr<std::string> ranks_json(store::StoreReader& reader, const Range& range);

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_PAGE_DATA_H_
