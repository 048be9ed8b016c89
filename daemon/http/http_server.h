// A small HTTP/1.1 server for GET: a table of exact paths, served by an event loop with a few
// threads, so that idle or slow clients cost a descriptor each, delay nobody, and are parted with
// when they take too long (connection_table.h). With TLS if it is given a certificate. Larger
// bodies are compressed for who asks for it.
//
// Handlers (message.h) run on the server's threads, several at a time; answers that take a while
// are given later, from elsewhere, and streams from a thread of their own (stream_set.h). The
// server is stopped by its destructor.
#ifndef GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_
#define GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/http/message.h"

namespace gradwarden::http {

// What a client has shown.
struct Caller {
  std::string_view authorization;  // the header; "" if there is none
  std::string_view address;
  bool certified = true;  // false: a certificate is asked for, and it showed no good one
};
struct Admission {
  std::optional<Response> refusal = std::nullopt;  // the answer for who may not come in
  StillAllowed still_allowed = nullptr;            // for who may
};
// Any thread.
using Gate = std::function<Admission(const Caller&)>;

struct HttpServerOptions {
  unsigned threads = 2;
  unsigned max_connections = 256;
  unsigned max_connections_per_address = 128;
  unsigned max_streams = 64;           // answers without an end at once
  unsigned idle_timeout_seconds = 15;  // without a byte in either direction
  unsigned request_timeout_seconds =
      10;                                // for a handshake and all headers, however they dribble in
  unsigned answer_timeout_seconds = 30;  // for a client to take its answer
};

// PEM texts. With an authority, clients are asked for a certificate of it.
struct Certificates {
  std::string certificate;
  std::string key;
  std::string client_ca;
};

class HttpServer {
 public:
  // Takes over a listening socket, also when it fails. Without `certificates` it serves clear text.
  static absl::StatusOr<std::unique_ptr<HttpServer>> start(
      int listening_socket, Routes routes, const HttpServerOptions& options, Gate gate = nullptr,
      std::optional<Certificates> certificates = std::nullopt);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // New connections get these; those that stand go on a little while with what they have. If these
  // do not work the old ones stay. One thread at a time.
  absl::Status renew(const Certificates& certificates);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_HTTP_SERVER_H_
