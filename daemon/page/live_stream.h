// Server-sent events of one attempt: "steps" with what came since, "events" with those that are new
// or changed (at first the last ones), "attempt" when the run was started again. First only marks
// where it begins, so that a page that has just loaded its history gets nothing twice.
//
// Used by the thread of the HTTP server's streams; reads the store on the reader pool.
#ifndef GRADWARDEN_DAEMON_PAGE_LIVE_STREAM_H_
#define GRADWARDEN_DAEMON_PAGE_LIVE_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "daemon/http/message.h"
#include "daemon/page/event_cursor.h"
#include "daemon/page/page_data.h"
#include "daemon/query/reader_pool.h"

namespace gradwarden::page {

class LiveStream final : public http::Stream {
 public:
  // `range.first` is the first step that the page does not have yet.
  LiveStream(query::ReaderPool& readers, Range range)
      : readers_(readers), range_(std::move(range)) {}
  std::optional<std::string> next() override;

 private:
  std::string read(store::StoreReader& reader);
  void add_steps(store::StoreReader& reader, std::string& out);
  void add_events(store::StoreReader& reader, std::string& out);

  query::ReaderPool& readers_;
  Range range_;
  EventCursor events_;
};

}  // namespace gradwarden::page

#endif  // GRADWARDEN_DAEMON_PAGE_LIVE_STREAM_H_
