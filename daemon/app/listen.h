// Addresses to listen on: parsing, the rule about loopback, and sockets whose errors are clear.
// Pure functions and system calls; any thread.
#ifndef GRADWARDEN_DAEMON_APP_LISTEN_H_
#define GRADWARDEN_DAEMON_APP_LISTEN_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gradwarden::app {

struct Address {
  std::string host;  // an IP literal
  std::uint16_t port = 0;
  bool ipv6 = false;

  bool loopback() const;
  // host:port, [host]:port for IPv6.
  std::string text() const;
};

// "127.0.0.1:7460", "[::1]:7460", "localhost:0". INVALID_ARGUMENT says what is allowed.
absl::StatusOr<Address> parse_address(const std::string& text);

// A listening socket; ALREADY_EXISTS if the port is taken or the address is not this host's.
absl::StatusOr<int> listen_on(const Address& address);
// The port a socket is bound to.
std::uint16_t bound_port(int socket);

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_LISTEN_H_
