#include "daemon/app/listen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace gradwarden::app {
namespace {

constexpr int kBacklog = 128;

absl::Status bad_address(const std::string& text) {
  return absl::InvalidArgumentError(
      "\"" + text +
      "\", allowed is IP:PORT, [IPV6]:PORT or localhost:PORT with a port from 0 (any free one) to "
      "65535");
}

socklen_t fill(const Address& address, sockaddr_storage& out) {
  std::memset(&out, 0, sizeof out);
  if (address.ipv6) {
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&out);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(address.port);
    inet_pton(AF_INET6, address.host.c_str(), &v6->sin6_addr);
    return sizeof *v6;
  }
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out);
  v4->sin_family = AF_INET;
  v4->sin_port = htons(address.port);
  inet_pton(AF_INET, address.host.c_str(), &v4->sin_addr);
  return sizeof *v4;
}

}  // namespace

bool Address::loopback() const { return ipv6 ? host == "::1" : host.rfind("127.", 0) == 0; }

std::string Address::text() const {
  return (ipv6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

absl::StatusOr<Address> parse_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos) return bad_address(text);
  Address address;
  address.host = text.substr(0, colon);
  const std::string port = text.substr(colon + 1);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (error != std::errc() || end != port.data() + port.size()) return bad_address(text);
  if (address.host == "localhost") address.host = "127.0.0.1";
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
    address.ipv6 = true;
  }
  in6_addr parsed{};
  if (inet_pton(address.ipv6 ? AF_INET6 : AF_INET, address.host.c_str(), &parsed) != 1) {
    return bad_address(text);
  }
  return address;
}

absl::StatusOr<int> listen_on(const Address& address) {
  const int type = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const int socket = ::socket(address.ipv6 ? AF_INET6 : AF_INET, type, 0);
  if (socket < 0) return absl::InternalError(std::string("socket: ") + std::strerror(errno));
  const int on = 1;
  ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_storage storage{};
  const socklen_t size = fill(address, storage);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&storage), size) == 0 &&
      ::listen(socket, kBacklog) == 0) {
    return socket;
  }
  const int reason = errno;
  ::close(socket);
  return absl::AlreadyExistsError("cannot listen on " + address.text() + ": " +
                                  std::strerror(reason));
}

std::uint16_t bound_port(int socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) != 0) return 0;
  return ntohs(storage.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&storage)->sin_port);
}

}  // namespace gradwarden::app
