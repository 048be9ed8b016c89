// What of Daemon concerns HTTP: its paths, who may ask for them, and whether it is ready.
#include <utility>

#include "daemon/app/daemon.h"
#include "daemon/app/exit_codes.h"
#include "daemon/app/listen.h"
#include "daemon/app/start_parts.h"
#include "daemon/page/page_routes.h"

namespace gradwarden::app {
namespace {

constexpr char kTextFormat[] = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace

std::optional<StartError> Daemon::start_http() {
  const absl::StatusOr<Address> address = parse_address(config_.http_listen);
  if (!address.ok()) return start_error(kExitUsage, address.status());
  const absl::StatusOr<int> socket = listen_on(*address);
  if (!socket.ok()) return start_error(kExitAddressInUse, socket.status());
  http_port_ = bound_port(*socket);
  std::optional<http::Certificates> certificates;
  if (tls_ != nullptr) certificates = certificates_of(tls_->material());
  auto server = http::HttpServer::start(
      *socket, routes(), config_.http, [this](const http::Caller& caller) { return admit(caller); },
      std::move(certificates));
  if (!server.ok()) return start_error(kExitInternal, server.status());
  http_ = *std::move(server);
  return std::nullopt;
}

// For all paths but the probes.
http::Admission Daemon::admit(const http::Caller& caller) {
  if (!caller.certified) {
    metrics_.denied(metrics::Denial::kCertificate);
    return {http::Response{403, "this daemon asks for a client certificate of its authority\n"}};
  }
  security::Pass pass;
  const absl::Status status =
      access_.allow(caller.authorization, security::Scope::kRead, caller.address, &pass);
  if (!status.ok()) {
    return {http::Response{absl::IsPermissionDenied(status) ? 403 : 401,
                           std::string(status.message()) + "\n"}};
  }
  return {.still_allowed = [this, pass] {
    return access_.still_allowed(pass, security::Scope::kRead);
  }};
}

http::Response Daemon::ready() const {
  switch (phase_.load()) {
    case Phase::kStarting:
      return {503, "not ready: starting\n"};
    case Phase::kDraining:
      return {503, "not ready: shutting down\n"};
    case Phase::kServing:
      break;
  }
  if (metrics_.store_failing) {
    return {503, "not ready: the store cannot commit, see the log\n"};
  }
  return {200, "ready\n"};
}

http::Routes Daemon::routes() {
  http::Routes routes = {{"/metrics",
                          [this] {
                            return http::Response{200, collector_.text(), kTextFormat};
                          }},
                         {"/-/healthy",
                          {[] {
                             return http::Response{200, "healthy\n"};
                           },
                           true}},
                         {"/-/ready", {[this] { return ready(); }, true}}};
  page::add_routes(routes, [this] { return serving_readers_.load(); });
  return routes;
}

}  // namespace gradwarden::app
