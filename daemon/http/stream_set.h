// The answers without an end that the HTTP server is giving, and the thread that asks them for
// more.
//
// While a stream has nothing to send its connection is suspended: it costs a descriptor and no
// turn of the event loop. One that does not take what it is sent is ended, and so is one whose
// caller is no longer allowed to have it.
//
// begin() is called by the event loops, end_those_that_must() by the server. Ends its thread in the
// destructor, before which the connections must be gone or about to be.
#ifndef GRADWARDEN_DAEMON_HTTP_STREAM_SET_H_
#define GRADWARDEN_DAEMON_HTTP_STREAM_SET_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "daemon/http/message.h"

struct MHD_Connection;
struct MHD_Response;

namespace gradwarden::http {

class StreamSet {
 public:
  explicit StreamSet(std::size_t max_streams);
  ~StreamSet();
  StreamSet(const StreamSet&) = delete;
  StreamSet& operator=(const StreamSet&) = delete;

  // Set by the owner of an event loop when that is about to end.
  using Ending = std::shared_ptr<const std::atomic<bool>>;

  // The response to queue for this connection; null if there are too many streams already.
  MHD_Response* begin(MHD_Connection* connection, std::unique_ptr<Stream> stream,
                      StillAllowed still_allowed, Ending ending);
  // After it no stream of a loop that is ending has its connection suspended.
  void end_those_that_must();

 private:
  struct Open;
  struct Callbacks;
  void run();
  static void ask(Open& open);

  const std::size_t max_streams_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::list<std::shared_ptr<Open>> open_;  // guarded by mutex_
  bool stopping_ = false;                  // guarded by mutex_
  std::thread thread_;                     // last: starts in the constructor
};

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_STREAM_SET_H_
