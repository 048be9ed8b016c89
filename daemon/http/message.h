// What goes in and out of the HTTP server's handlers. Plain types.
#ifndef GRADWARDEN_DAEMON_HTTP_MESSAGE_H_
#define GRADWARDEN_DAEMON_HTTP_MESSAGE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace gradwarden::http {

struct Request {
  std::map<std::string, std::string> query;  // decoded; of equal names the last

  // "" if it is not there.
  std::string value(const std::string& name) const {
    const auto found = query.find(name);
    return found == query.end() ? std::string() : found->second;
  }
};

struct Response {
  int status = 200;
  std::string body = {};
  const char* content_type = "text/plain; charset=utf-8";
  std::vector<std::pair<const char*, const char*>> headers = {};
};

// Answers at once, on one of the server's threads.
using Handler = std::function<Response()>;

// Answers later: calls `answer` exactly once, on any thread. No thread of the server waits for it.
using Answer = std::function<void(Response)>;
using LaterHandler = std::function<void(const Request& request, Answer answer)>;

// An answer without an end (server-sent events).
class Stream {
 public:
  virtual ~Stream() = default;
  // What there is to send now, maybe nothing; no value ends the stream. Called about every half
  // second on a thread that all streams share, which may wait a little.
  virtual std::optional<std::string> next() = 0;
};
// Whether who asked may go on getting an answer that has no end. Any thread, and must not wait;
// null: as long as it likes.
using StillAllowed = std::function<bool()>;
// Null: the request does not say of what.
using StreamHandler = std::function<std::unique_ptr<Stream>(const Request& request)>;

struct Route {
  template <typename Callable>
  Route(Callable callable) : handler(std::move(callable)) {}  // NOLINT: a handler is a route
  Route(Handler to_all, bool open) : handler(std::move(to_all)), open_to_all(open) {}
  static Route later(LaterHandler handler) {
    Route route(Handler{}, false);
    route.later_handler = std::move(handler);
    return route;
  }
  static Route stream(StreamHandler handler) {
    Route route(Handler{}, false);
    route.stream_handler = std::move(handler);
    return route;
  }

  // One of the three.
  Handler handler;
  LaterHandler later_handler;
  StreamHandler stream_handler;
  bool open_to_all = false;  // served without asking the gate: probes, the page without its data
};
using Routes = std::map<std::string, Route>;

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_MESSAGE_H_
