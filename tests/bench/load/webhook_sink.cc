#include "tests/bench/load/webhook_sink.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace gradwarden::load {
namespace {

constexpr char kAnswer[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
constexpr timeval kPatience{5, 0};  // with a caller that says nothing

// Where the body begins; 0 as long as the head is not complete.
std::size_t body_of(const std::string& request) {
  const std::size_t end = request.find("\r\n\r\n");
  return end == std::string::npos ? 0 : end + 4;
}

std::size_t content_length(const std::string& request) {
  const std::size_t at = request.find("Content-Length: ");
  return at == std::string::npos ? 0 : std::strtoull(request.c_str() + at + 16, nullptr, 10);
}

}  // namespace

WebhookSink::WebhookSink() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (::bind(socket_, plain, size) != 0 || ::listen(socket_, 64) != 0 ||
      ::getsockname(socket_, plain, &size) != 0) {
    throw std::runtime_error("no port for the webhook");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { serve(); });
}

WebhookSink::~WebhookSink() {
  ::shutdown(socket_, SHUT_RDWR);  // ends accept()
  thread_.join();
  ::close(socket_);
}

std::map<std::string, WebhookSink::Clock::time_point> WebhookSink::first_calls() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return first_calls_;
}

void WebhookSink::serve() {
  while (true) {
    const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return;
    ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    take(connection);
    ::close(connection);
  }
}

void WebhookSink::take(int connection) {
  std::string request;
  char buffer[16384];
  while (body_of(request) == 0 || request.size() < body_of(request) + content_length(request)) {
    const ssize_t count = ::recv(connection, buffer, sizeof buffer, 0);
    if (count <= 0) return;
    request.append(buffer, static_cast<std::size_t>(count));
  }
  const Clock::time_point now = Clock::now();
  ::send(connection, kAnswer, sizeof kAnswer - 1, MSG_NOSIGNAL);
  const auto body = nlohmann::json::parse(request.substr(body_of(request)), nullptr, false);
  if (body.is_discarded() || !body.contains("alerts")) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const auto& alert : body["alerts"]) first_calls_.emplace(alert.value("run", ""), now);
}

}  // namespace gradwarden::load
