// The events of one attempt as a viewer of the page gets them: at first the last ones, then what is
// new or has changed, at the cost of what is new or open rather than of all that there ever was.
// Used on a reader's thread.
#ifndef GRADWARDEN_DAEMON_PAGE_EVENT_CURSOR_H_
#define GRADWARDEN_DAEMON_PAGE_EVENT_CURSOR_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::page {

// The last ones, in order of their id: as many as the page shows.
absl::StatusOr<std::vector<v1::Event>> last_events(store::StoreReader& reader,
                                                   const store::AttemptRow& attempt);

class EventCursor {
 public:
  // What the last call did not tell, or told otherwise. At first, and where the attempt is another
  // one, the last events. After an error the cursor is of no use.
  absl::StatusOr<std::vector<v1::Event>> news(store::StoreReader& reader,
                                              const store::AttemptRow& attempt);

 private:
  absl::StatusOr<std::vector<v1::Event>> changed(store::StoreReader& reader,
                                                 const store::AttemptRow& attempt);
  void note(const v1::Event& event);

  std::int64_t attempt_id_ = 0;  // 0: nothing is told yet
  std::uint64_t after_ = 0;      // the highest id that was told
  // Those that were told before their end, by id, with the revision that was told. An event that
  // has ended changes no more.
  std::map<std::uint64_t, std::uint32_t> open_;
};

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_EVENT_CURSOR_H_
