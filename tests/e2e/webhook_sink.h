// A webhook that keeps what it is sent, for tests. It can be away: then nobody listens on its port.
//
// One thread calls; the object's own thread serves.
#ifndef GRADWARDEN_TESTS_E2E_WEBHOOK_SINK_H_
#define GRADWARDEN_TESTS_E2E_WEBHOOK_SINK_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace gradwarden::testing {

class WebhookSink {
 public:
  WebhookSink() { come_back(); }
  ~WebhookSink() { go_away(); }
  WebhookSink(const WebhookSink&) = delete;
  WebhookSink& operator=(const WebhookSink&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/hook"; }
  void go_away() {
    ending_ = true;
    if (thread_.joinable()) thread_.join();
    if (socket_ >= 0) ::close(socket_);
    socket_ = -1;
  }
  // On the same port as before.
  void come_back() {
    socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    ::setsockopt(socket_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port_);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const any = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_, any, size) != 0 || ::listen(socket_, 16) != 0 ||
        ::getsockname(socket_, any, &size) != 0) {
      throw std::runtime_error("no port for the webhook");
    }
    port_ = ntohs(address.sin_port);
    ending_ = false;
    thread_ = std::thread([this] { serve(); });
  }
  std::vector<std::string> bodies() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return bodies_;
  }

 private:
  void serve() {
    while (!ending_) {
      pollfd wait{socket_, POLLIN, 0};
      if (::poll(&wait, 1, 20) <= 0) continue;
      const int connection = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) continue;
      take(connection);
      ::close(connection);
    }
  }

  void take(int connection) {
    std::string request;
    char buffer[4096];
    std::size_t whole = std::string::npos;
    while (request.size() < whole) {
      const ssize_t count = ::recv(connection, buffer, sizeof buffer, 0);
      if (count <= 0) return;
      request.append(buffer, static_cast<std::size_t>(count));
      const std::size_t body = request.find("\r\n\r\n");
      const std::size_t length = request.find("Content-Length: ");
      if (body == std::string::npos || length == std::string::npos) continue;
      whole = body + 4 + std::strtoull(request.c_str() + length + 16, nullptr, 10);
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      bodies_.push_back(request.substr(request.find("\r\n\r\n") + 4));
    }
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    ::send(connection, answer.data(), answer.size(), MSG_NOSIGNAL);
  }

  std::uint16_t port_ = 0;
  int socket_ = -1;
  std::atomic<bool> ending_{false};
  std::mutex mutex_;
  std::vector<std::string> bodies_;  // guarded by mutex_
  std::thread thread_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_WEBHOOK_SINK_H_
