#include "daemon/http/connection_table.h"

#include <sys/socket.h>

#include <algorithm>

namespace gradwarden::http {

void ConnectionTable::opened(const void* key, int socket, const std::string& address,
                             Clock::time_point now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Connection& added = connections_[key];
  added = {socket, address, false, false, false, now};
  // The new one is the last to be looked at: it has waited least.
  if (count(&address) > limits_.per_address) {
    part(*longest_waiting(&address), crowded_out_);
  } else if (count(nullptr) > limits_.connections) {
    part(*longest_waiting(nullptr), crowded_out_);
  }
}

void ConnectionTable::request_began(const void* key, Clock::time_point now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = connections_.find(key);
  if (found == connections_.end()) return;
  found->second.answering = true;
  found->second.since = now;
}

void ConnectionTable::streams(const void* key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = connections_.find(key);
  if (found != connections_.end()) found->second.streaming = true;
}

void ConnectionTable::request_ended(const void* key, Clock::time_point now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = connections_.find(key);
  if (found == connections_.end()) return;
  found->second.answering = false;
  found->second.streaming = false;
  found->second.since = now;
}

void ConnectionTable::closed(const void* key) {
  const std::lock_guard<std::mutex> lock(mutex_);
  connections_.erase(key);
}

void ConnectionTable::sweep(Clock::time_point now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (auto& [key, connection] : connections_) {
    if (connection.parted || connection.streaming) continue;
    const auto limit = connection.answering ? limits_.answer : limits_.wait;
    if (now - connection.since > limit) part(connection, too_slow_);
  }
}

std::size_t ConnectionTable::size() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return count(nullptr);
}

std::uint64_t ConnectionTable::crowded_out() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return crowded_out_;
}

std::uint64_t ConnectionTable::too_slow() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return too_slow_;
}

// The event loop then sees the end of the connection and closes it.
void ConnectionTable::part(Connection& connection, std::uint64_t& counter) {
  connection.parted = true;
  ++counter;
  ::shutdown(connection.socket, SHUT_RDWR);
}

ConnectionTable::Connection* ConnectionTable::longest_waiting(const std::string* address) {
  Connection* longest = nullptr;
  for (auto& [key, connection] : connections_) {
    if (connection.parted || connection.answering) continue;
    if (address != nullptr && connection.address != *address) continue;
    if (longest == nullptr || connection.since < longest->since) longest = &connection;
  }
  return longest;
}

std::size_t ConnectionTable::count(const std::string* address) const {
  return static_cast<std::size_t>(
      std::count_if(connections_.begin(), connections_.end(), [&](const auto& item) {
        return !item.second.parted && (address == nullptr || item.second.address == *address);
      }));
}

}  // namespace gradwarden::http
