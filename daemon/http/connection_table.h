// The open connections of the HTTP server, and which of them to part with.
//
// A connection waits (for a request to be complete: the handshake, the headers, the time between
// two requests) or is being answered. Whoever waits too long, or is the one that has waited longest
// when the room is used up, is shut down: so those who connect and then dawdle can take places from
// each other, and not from somebody who asks. All methods may be called from any thread.
#ifndef GRADWARDEN_DAEMON_HTTP_CONNECTION_TABLE_H_
#define GRADWARDEN_DAEMON_HTTP_CONNECTION_TABLE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace gradwarden::http {

struct ConnectionLimits {
  std::size_t connections = 256;
  std::size_t per_address = 128;
  std::chrono::seconds wait{10};    // for a whole request
  std::chrono::seconds answer{30};  // for taking all of its answer
};

class ConnectionTable {
 public:
  using Clock = std::chrono::steady_clock;

  explicit ConnectionTable(const ConnectionLimits& limits) : limits_(limits) {}

  // `key` names the connection until closed(). The socket must stay open until then.
  void opened(const void* key, int socket, const std::string& address, Clock::time_point now);
  void request_began(const void* key, Clock::time_point now);
  // Its answer has no end: taking it has no time limit.
  void streams(const void* key);
  void request_ended(const void* key, Clock::time_point now);
  void closed(const void* key);

  // Shuts down who has waited, or has been answered, for too long.
  void sweep(Clock::time_point now);

  std::size_t size() const;
  // Connections shut down because there was no room, or because they took too long.
  std::uint64_t crowded_out() const;
  std::uint64_t too_slow() const;

 private:
  struct Connection {
    int socket = -1;
    std::string address;
    bool answering = false;
    bool streaming = false;
    bool parted = false;  // shut down, and about to be closed
    Clock::time_point since{};
  };

  void part(Connection& connection, std::uint64_t& counter);
  // The one of `address` (any, if null) that has waited longest; null if none waits.
  Connection* longest_waiting(const std::string* address);
  std::size_t count(const std::string* address) const;

  const ConnectionLimits limits_;
  mutable std::mutex mutex_;
  // All below: guarded by mutex_.
  std::map<const void*, Connection> connections_;
  std::uint64_t crowded_out_ = 0;
  std::uint64_t too_slow_ = 0;
};

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_CONNECTION_TABLE_H_
