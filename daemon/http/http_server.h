// A small HTTP/1.1 server for GET: a table of exact paths, served by an event loop with a few
// threads, so that idle or slow clients cost a descriptor each and delay nobody.
//
// Handlers run on the server's threads, several at a time. The server is stopped by its destructor.
#ifndef GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_
#define GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace gradwarden::http {

struct Response {
  int status = 200;
  std::string body;
  const char* content_type = "text/plain; charset=utf-8";
};

using Handler = std::function<Response()>;
using Routes = std::map<std::string, Handler>;

struct HttpServerOptions {
  unsigned threads = 2;
  unsigned max_connections = 256;
  unsigned max_connections_per_address = 128;
  unsigned idle_timeout_seconds = 15;
};

class HttpServer {
 public:
  // Takes over a listening socket, also when it fails.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(int listening_socket, Routes routes,
                                                           const HttpServerOptions& options);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_
