#include "daemon/http/http_server.h"

#include <microhttpd.h>
#include <unistd.h>

#include <cstring>
#include <exception>
#include <utility>

#include "absl/status/status.h"

namespace gradwarden::http {

struct HttpServer::Impl {
  Routes routes;
  MHD_Daemon* daemon = nullptr;
};

namespace {

MHD_Result send(MHD_Connection* connection, const Response& response, bool allow_header) {
  MHD_Response* out = MHD_create_response_from_buffer(
      response.body.size(), const_cast<char*>(response.body.data()), MHD_RESPMEM_MUST_COPY);
  if (out == nullptr) return MHD_NO;
  MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE, response.content_type);
  MHD_add_response_header(out, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (allow_header) MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  const MHD_Result result =
      MHD_queue_response(connection, static_cast<unsigned>(response.status), out);
  MHD_destroy_response(out);
  return result;
}

Response call(const Handler& handler) {
  // An exception must not unwind through the server's C code.
  try {
    return handler();
  } catch (const std::exception& error) {
    return {500, std::string("internal error: ") + error.what() + "\n"};
  }
}

MHD_Result on_request(void* context, MHD_Connection* connection, const char* url,
                      const char* method, const char*, const char*, size_t* upload_size,
                      void** seen) {
  // The first call announces the headers only; a body is read and ignored.
  static char marker;
  if (*seen == nullptr) {
    *seen = &marker;
    return MHD_YES;
  }
  if (*upload_size != 0) {
    *upload_size = 0;
    return MHD_YES;
  }
  const auto& routes = *static_cast<const Routes*>(context);
  const auto route = routes.find(url);
  if (route == routes.end()) {
    std::string body = "not found; this server has:\n";
    for (const auto& [path, handler] : routes) body += "  " + path + "\n";
    return send(connection, {404, std::move(body)}, false);
  }
  if (std::strcmp(method, "GET") != 0 && std::strcmp(method, "HEAD") != 0) {
    return send(connection, {405, "only GET and HEAD are allowed here\n"}, true);
  }
  return send(connection, call(route->second), false);
}

}  // namespace

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(int listening_socket, Routes routes,
                                                              const HttpServerOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->routes = std::move(routes);
  impl->daemon = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD, 0, nullptr, nullptr, &on_request, &impl->routes,
      MHD_OPTION_LISTEN_SOCKET, listening_socket, MHD_OPTION_THREAD_POOL_SIZE, options.threads,
      MHD_OPTION_CONNECTION_LIMIT, options.max_connections, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
      options.max_connections_per_address, MHD_OPTION_CONNECTION_TIMEOUT,
      options.idle_timeout_seconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT, std::size_t{16384},
      MHD_OPTION_END);
  if (impl->daemon == nullptr) {
    ::close(listening_socket);
    return absl::InternalError("the HTTP server did not start");
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() { MHD_stop_daemon(impl_->daemon); }

}  // namespace gradwarden::http
