#include "daemon/http/http_server.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/http/connection_table.h"
#include "daemon/http/exchange.h"
#include "daemon/http/gzip.h"
#include "daemon/http/stream_set.h"

namespace gradwarden::http {
namespace {

using Clock = ConnectionTable::Clock;

constexpr std::chrono::milliseconds kSweepInterval{500};
// Connections that came before a renewal may finish what they are at.
constexpr std::chrono::seconds kRetireAfter{5};
constexpr std::size_t kConnectionMemory = 16384;
constexpr std::size_t kWorthCompressing = 1400;  // what a packet holds
constexpr char kPriorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

struct Stopper {
  void operator()(MHD_Daemon* daemon) const { MHD_stop_daemon(daemon); }
};

template <typename Impl>
struct LoopContext {
  Impl& server;
  std::shared_ptr<Waiting> waiting = std::make_shared<Waiting>();
  std::shared_ptr<std::atomic<bool>> ending = std::make_shared<std::atomic<bool>>(false);
};

// An event loop and what its callbacks get. Ends when all requests that wait in it are answered.
template <typename Impl>
struct EventLoop {
  std::unique_ptr<LoopContext<Impl>> context;
  std::unique_ptr<MHD_Daemon, Stopper> daemon;

  EventLoop() = default;
  EventLoop(EventLoop&&) noexcept = default;
  EventLoop& operator=(EventLoop&& other) noexcept {
    end();
    context = std::move(other.context);
    daemon = std::move(other.daemon);
    return *this;
  }
  ~EventLoop() { end(); }
  // No new connections from here on.
  void end() {
    if (daemon == nullptr) return;
    MHD_quiesce_daemon(daemon.get());
    *context->ending = true;
    context->server.streams.end_those_that_must();
    context->waiting->close();
    daemon.reset();
  }
};

std::string address_of(const sockaddr* address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address != nullptr && address->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(address)->sin_addr, text, sizeof text);
  } else if (address != nullptr && address->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr, text,
              sizeof text);
  }
  return text;
}

std::string address_of(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  return info == nullptr ? "?" : address_of(info->client_addr);
}

const char* header_of(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
}

Request request_of(MHD_Connection* connection) {
  Request request;
  const auto add = [](void* context, MHD_ValueKind, const char* name, const char* value) {
    static_cast<Request*>(context)->query[name] = value == nullptr ? "" : value;
    return MHD_YES;
  };
  MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add, &request);
  return request;
}

void add_headers(MHD_Response* out, const Response& response) {
  MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_TYPE, response.content_type);
  bool cached = false;
  for (const auto& [name, value] : response.headers) {
    MHD_add_response_header(out, name, value);
    cached = cached || std::strcmp(name, MHD_HTTP_HEADER_CACHE_CONTROL) == 0;
  }
  if (!cached) MHD_add_response_header(out, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
  if (response.status == MHD_HTTP_METHOD_NOT_ALLOWED) {
    MHD_add_response_header(out, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  }
  if (response.status == MHD_HTTP_UNAUTHORIZED) {
    MHD_add_response_header(out, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
  }
}

MHD_Result queue(MHD_Connection* connection, int status, MHD_Response* out) {
  const MHD_Result result = MHD_queue_response(connection, static_cast<unsigned>(status), out);
  MHD_destroy_response(out);
  return result;
}

MHD_Result send(MHD_Connection* connection, const Response& response) {
  std::optional<std::string> compressed;
  if (response.body.size() > kWorthCompressing &&
      accepts_gzip(header_of(connection, MHD_HTTP_HEADER_ACCEPT_ENCODING))) {
    compressed = gzip(response.body);
  }
  const std::string& body = compressed ? *compressed : response.body;
  MHD_Response* out = MHD_create_response_from_buffer(body.size(), const_cast<char*>(body.data()),
                                                      MHD_RESPMEM_MUST_COPY);
  if (out == nullptr) return MHD_NO;
  if (compressed) MHD_add_response_header(out, MHD_HTTP_HEADER_CONTENT_ENCODING, "gzip");
  MHD_add_response_header(out, MHD_HTTP_HEADER_VARY, MHD_HTTP_HEADER_ACCEPT_ENCODING);
  add_headers(out, response);
  return queue(connection, response.status, out);
}

Response call(const Handler& handler) {
  // An exception must not unwind through the server's C code.
  try {
    return handler();
  } catch (const std::exception& error) {
    return {500, std::string("internal error: ") + error.what() + "\n"};
  }
}

bool showed_good_certificate(MHD_Connection* connection) {
  const MHD_ConnectionInfo* info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (info == nullptr) return false;
  auto* session = static_cast<gnutls_session_t>(info->tls_session);
  unsigned faults = 0;
  return gnutls_certificate_verify_peers2(session, &faults) == GNUTLS_E_SUCCESS && faults == 0;
}

}  // namespace

struct HttpServer::Impl {
  Impl(Routes r, const HttpServerOptions& o, Gate g, int listening_socket)
      : routes(std::move(r)),
        options(o),
        gate(std::move(g)),
        socket(listening_socket),
        table({o.max_connections, o.max_connections_per_address,
               std::chrono::seconds(o.request_timeout_seconds),
               std::chrono::seconds(o.answer_timeout_seconds)}),
        streams(o.max_streams) {}

  using Loop = EventLoop<Impl>;

  Loop start_loop(const std::optional<Certificates>& with);
  // Refuses what is not let in, or not understood; else `route` is there to answer it.
  Admission admission(MHD_Connection* connection, Routes::const_iterator route,
                      const char* method) const;
  MHD_Result answer(MHD_Connection* connection, const char* url, const char* method,
                    const LoopContext<Impl>& loop_context, void** seen);
  MHD_Result begin_stream(MHD_Connection* connection, const StreamHandler& handler,
                          StillAllowed still_allowed, StreamSet::Ending ending);
  MHD_Result begin_exchange(MHD_Connection* connection, const LaterHandler& handler,
                            std::shared_ptr<Waiting> waiting, void** seen);
  void sweep();
  void stop();

  const Routes routes;
  const HttpServerOptions options;
  const Gate gate;
  const int socket;
  ConnectionTable table;
  std::optional<Certificates> certificates;  // of `loop`
  StreamSet streams;                         // before the loops: it outlives them
  Loop loop;
  std::vector<std::pair<Loop, Clock::time_point>> retired;  // guarded by mutex
  std::mutex mutex;
  std::condition_variable wake;
  bool stopping = false;  // guarded by mutex
  std::thread sweeper;
};

Admission HttpServer::Impl::admission(MHD_Connection* connection, Routes::const_iterator route,
                                      const char* method) const {
  Admission admission;
  if (gate && (route == routes.end() || !route->second.open_to_all)) {
    const std::string address = address_of(connection);
    Caller caller{header_of(connection, MHD_HTTP_HEADER_AUTHORIZATION), address};
    caller.certified =
        !certificates || certificates->client_ca.empty() || showed_good_certificate(connection);
    admission = gate(caller);
    if (admission.refusal) return admission;
  }
  if (route == routes.end()) {
    std::string body = "not found; this server has:\n";
    for (const auto& [path, handler] : routes) body += "  " + path + "\n";
    admission.refusal = Response{MHD_HTTP_NOT_FOUND, std::move(body)};
  } else if (std::strcmp(method, "GET") != 0 && std::strcmp(method, "HEAD") != 0) {
    admission.refusal =
        Response{MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here\n"};
  }
  return admission;
}

MHD_Result HttpServer::Impl::answer(MHD_Connection* connection, const char* url, const char* method,
                                    const LoopContext<Impl>& loop_context, void** seen) {
  const auto found = routes.find(url);
  Admission admitted = admission(connection, found, method);
  if (admitted.refusal) return send(connection, *admitted.refusal);
  const Route& route = found->second;
  if (route.handler) return send(connection, call(route.handler));
  if (route.stream_handler) {
    return begin_stream(connection, route.stream_handler, std::move(admitted.still_allowed),
                        loop_context.ending);
  }
  return begin_exchange(connection, route.later_handler, loop_context.waiting, seen);
}

MHD_Result HttpServer::Impl::begin_exchange(MHD_Connection* connection, const LaterHandler& handler,
                                            std::shared_ptr<Waiting> waiting, void** seen) {
  std::shared_ptr<Exchange> exchange =
      Exchange::begin(connection, handler, request_of(connection), std::move(waiting));
  if (exchange == nullptr) {
    // After a renewal a new connection finds the loop that has taken over.
    return send(connection, {MHD_HTTP_SERVICE_UNAVAILABLE,
                             "this connection is about to end; try again\n",
                             "text/plain; charset=utf-8",
                             {{MHD_HTTP_HEADER_CONNECTION, "close"}}});
  }
  *seen = new std::shared_ptr<Exchange>(std::move(exchange));
  return MHD_YES;
}

MHD_Result HttpServer::Impl::begin_stream(MHD_Connection* connection, const StreamHandler& handler,
                                          StillAllowed still_allowed, StreamSet::Ending ending) {
  std::unique_ptr<Stream> stream = handler(request_of(connection));
  if (stream == nullptr) {
    return send(connection, {MHD_HTTP_BAD_REQUEST, "nothing to stream: a parameter is missing\n"});
  }
  MHD_Response* out =
      streams.begin(connection, std::move(stream), std::move(still_allowed), std::move(ending));
  if (out == nullptr) {
    return send(connection, {MHD_HTTP_SERVICE_UNAVAILABLE,
                             "too many live streams already; close one, or raise "
                             "http.max_streams\n"});
  }
  table.streams(connection);
  Response headers;
  headers.content_type = "text/event-stream; charset=utf-8";
  add_headers(out, headers);
  return queue(connection, MHD_HTTP_OK, out);
}

namespace {

// What the event loop calls, with its LoopContext.
template <typename Impl>
struct Callbacks {
  static Impl& server(void* context) { return static_cast<LoopContext<Impl>*>(context)->server; }

  static MHD_Result on_request(void* context, MHD_Connection* connection, const char* url,
                               const char* method, const char*, const char*, size_t* upload_size,
                               void** seen) {
    // The first call announces the headers only; a body is read and ignored.
    if (*seen == nullptr) {
      *seen = &marker;
      return MHD_YES;
    }
    if (*upload_size != 0) {
      *upload_size = 0;
      return MHD_YES;
    }
    // Called again, for an answer that has come.
    if (*seen != &marker) {
      return send(connection, (*static_cast<std::shared_ptr<Exchange>*>(*seen))->response());
    }
    Impl& impl = server(context);
    impl.table.request_began(connection, Clock::now());
    return impl.answer(connection, url, method, *static_cast<LoopContext<Impl>*>(context), seen);
  }

  static void on_completed(void* context, MHD_Connection* connection, void** seen,
                           MHD_RequestTerminationCode) {
    if (*seen != nullptr && *seen != &marker) {
      delete static_cast<std::shared_ptr<Exchange>*>(*seen);
    }
    *seen = nullptr;
    server(context).table.request_ended(connection, Clock::now());
  }

  static void on_connection(void* context, MHD_Connection* connection, void**,
                            MHD_ConnectionNotificationCode what) {
    auto& table = server(context).table;
    if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
      table.closed(connection);
      return;
    }
    const MHD_ConnectionInfo* info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    table.opened(connection, info == nullptr ? -1 : info->connect_fd, address_of(connection),
                 Clock::now());
  }

  static inline char marker = 0;
};

}  // namespace

HttpServer::Impl::Loop HttpServer::Impl::start_loop(const std::optional<Certificates>& with) {
  using On = Callbacks<Impl>;
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
  std::vector<MHD_OptionItem> tls;
  if (with) {
    flags |= MHD_USE_TLS;
    const auto text = [](const std::string& of) { return const_cast<char*>(of.c_str()); };
    tls.push_back({MHD_OPTION_HTTPS_MEM_CERT, 0, text(with->certificate)});
    tls.push_back({MHD_OPTION_HTTPS_MEM_KEY, 0, text(with->key)});
    tls.push_back({MHD_OPTION_HTTPS_PRIORITIES, 0, const_cast<char*>(kPriorities)});
    if (!with->client_ca.empty()) {
      tls.push_back({MHD_OPTION_HTTPS_MEM_TRUST, 0, text(with->client_ca)});
    }
  }
  tls.push_back({MHD_OPTION_END, 0, nullptr});
  // Room beyond the table's, so that a new connection comes in and one that dawdles goes.
  const unsigned room = options.max_connections + 16 * options.threads;
  Loop loop_of_these;
  loop_of_these.context = std::make_unique<LoopContext<Impl>>(LoopContext<Impl>{*this});
  void* context = loop_of_these.context.get();
  loop_of_these.daemon.reset(MHD_start_daemon(
      flags, 0, nullptr, nullptr, &On::on_request, context, MHD_OPTION_LISTEN_SOCKET, socket,
      MHD_OPTION_THREAD_POOL_SIZE, options.threads, MHD_OPTION_CONNECTION_LIMIT, room,
      MHD_OPTION_CONNECTION_TIMEOUT, options.idle_timeout_seconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionMemory, MHD_OPTION_NOTIFY_COMPLETED,
      &On::on_completed, context, MHD_OPTION_NOTIFY_CONNECTION, &On::on_connection, context,
      MHD_OPTION_ARRAY, tls.data(), MHD_OPTION_END));
  return loop_of_these;
}

void HttpServer::Impl::sweep() {
  std::unique_lock<std::mutex> lock(mutex);
  while (!stopping) {
    wake.wait_for(lock, kSweepInterval, [this] { return stopping; });
    std::vector<Loop> ended;
    while (!retired.empty() && retired.front().second < Clock::now()) {
      ended.push_back(std::move(retired.front().first));
      retired.erase(retired.begin());
    }
    lock.unlock();
    table.sweep(Clock::now());
    ended.clear();  // joins their threads
    lock.lock();
  }
}

void HttpServer::Impl::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    stopping = true;
  }
  wake.notify_one();
  if (sweeper.joinable()) sweeper.join();
  retired.clear();
  loop.end();
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::start(
    int listening_socket, Routes routes, const HttpServerOptions& options, Gate gate,
    std::optional<Certificates> certificates) {
  auto impl = std::make_unique<Impl>(std::move(routes), options, std::move(gate), listening_socket);
  impl->certificates = std::move(certificates);
  impl->loop = impl->start_loop(impl->certificates);
  if (impl->loop.daemon == nullptr) {
    ::close(listening_socket);
    return absl::InternalError("the HTTP server did not start");
  }
  impl->sweeper = std::thread([raw = impl.get()] { raw->sweep(); });
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

absl::Status HttpServer::renew(const Certificates& certificates) {
  Impl& impl = *impl_;
  // Two loops on one socket would be fine, but the old one would go on taking half of the callers.
  Impl::Loop next = impl.start_loop(certificates);
  if (next.daemon == nullptr)
    return absl::InternalError("the HTTP server did not take the certificate");
  MHD_quiesce_daemon(impl.loop.daemon.get());
  const std::lock_guard<std::mutex> lock(impl.mutex);
  impl.retired.emplace_back(std::move(impl.loop), Clock::now() + kRetireAfter);
  impl.loop = std::move(next);
  return absl::OkStatus();
}

HttpServer::~HttpServer() { impl_->stop(); }

}  // namespace gradwarden::http
