// A request that is answered later: its connection is suspended until the answer is there, so that
// no thread of the event loop waits for it. Internal to http/.
#ifndef GRADWARDEN_DAEMON_HTTP_EXCHANGE_H_
#define GRADWARDEN_DAEMON_HTTP_EXCHANGE_H_

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>

#include "daemon/http/message.h"

struct MHD_Connection;

namespace gradwarden::http {

// How many requests of one event loop wait for their answers. The loop must not end before they do:
// libmicrohttpd aborts the program when it is stopped with a connection suspended.
class Waiting {
 public:
  // False once close() was called: then the request must not wait.
  bool add();
  void remove();
  // Lets no request in any more, and returns when none waits.
  void close();

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  std::size_t count_ = 0;  // guarded by mutex_
  bool closed_ = false;    // guarded by mutex_
};

class Exchange {
 public:
  // Suspends the connection, on its event loop's thread, and has the handler called. Null, with
  // neither done, if the loop is about to end.
  static std::shared_ptr<Exchange> begin(MHD_Connection* connection, const LaterHandler& handler,
                                         const Request& request, std::shared_ptr<Waiting> waiting);

  // The answer, once the loop calls again.
  const Response& response() const { return *response_; }

 private:
  Exchange(MHD_Connection* connection, std::shared_ptr<Waiting> waiting)
      : connection_(connection), waiting_(std::move(waiting)) {}
  void finish(Response response);

  MHD_Connection* const connection_;
  const std::shared_ptr<Waiting> waiting_;
  std::mutex mutex_;
  std::optional<Response> response_;  // written once, before the connection is resumed
};

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_EXCHANGE_H_
