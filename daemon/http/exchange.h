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

// How many requests of one event loop wait for their answers. The loop must not end before they do.
class Waiting {
 public:
  void add();
  void remove();
  void wait_for_none();

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  std::size_t count_ = 0;  // guarded by mutex_
};

class Exchange {
 public:
  // Suspends the connection, on its event loop's thread, and has the handler called.
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
