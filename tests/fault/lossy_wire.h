// Two network namespaces of the test's own and the wire between them, which delays, loses or
// swallows packets as it is told: what `tc netem` does, for kernels without it.
//
//   client side 10.99.0.1 ──TUN── this wire ──TUN── 10.99.0.2 daemon side
//
// The thread that makes a wire moves into the client's side, and so do the threads it starts later;
// on_daemon_side() runs code on the other one. Needs to be let: refusal() says why not. Settings
// may change at any time.
#ifndef GRADWARDEN_TESTS_FAULT_LOSSY_WIRE_H_
#define GRADWARDEN_TESTS_FAULT_LOSSY_WIRE_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace gradwarden::testing {

class LossyWire {
 public:
  static constexpr const char* kClientAddress = "10.99.0.1";
  static constexpr const char* kDaemonAddress = "10.99.0.2";

  // Empty if namespaces and TUN devices may be made here. Tried in a child process.
  static std::string refusal();

  // Throws std::runtime_error where it is refused.
  explicit LossyWire(std::uint64_t seed);
  ~LossyWire();
  LossyWire(const LossyWire&) = delete;
  LossyWire& operator=(const LossyWire&) = delete;

  std::atomic<int> delay_ms{0};       // each way
  std::atomic<unsigned> loss{0};      // of 100 packets
  std::atomic<bool> swallows{false};  // a black hole
  std::atomic<std::uint64_t> carried{0}, lost{0};

  // On a thread in the daemon's namespace, to its end. What `code` throws is thrown here.
  void on_daemon_side(const std::function<void()>& code);

 private:
  using Clock = std::chrono::steady_clock;
  struct Packet {
    Clock::time_point due;
    std::vector<unsigned char> bytes;
  };

  void carry();
  void take(std::size_t from);
  void deliver();

  std::array<int, 2> ends_{-1, -1};              // TUN devices
  int daemon_side_ = -1;                         // its namespace
  std::mt19937_64 random_;                       // the carrying thread's
  std::array<std::deque<Packet>, 2> under_way_;  // to each end; the carrying thread's
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_FAULT_LOSSY_WIRE_H_
