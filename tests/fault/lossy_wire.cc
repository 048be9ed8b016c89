#include "tests/fault/lossy_wire.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <system_error>

namespace gradwarden::testing {
namespace {

constexpr std::size_t kPacketBytes = 2048;

[[noreturn]] void fail(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

void set_up(int socket, const char* name) {
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (::ioctl(socket, SIOCGIFFLAGS, &request) != 0) fail("SIOCGIFFLAGS");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (::ioctl(socket, SIOCSIFFLAGS, &request) != 0) fail("SIOCSIFFLAGS");
}

void set_address(int socket, const char* name, unsigned long what, const char* address) {
  ifreq request{};
  std::strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  auto* const in = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
  in->sin_family = AF_INET;
  ::inet_pton(AF_INET, address, &in->sin_addr);
  if (::ioctl(socket, what, &request) != 0) fail(std::string("an address for ") + name);
}

// Moves this thread into a new namespace with a loopback and a TUN device, whose other end this is.
int enter_side(const char* address) {
  if (::unshare(CLONE_NEWNET) != 0) fail("a network namespace");
  const int tun = ::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (tun < 0) fail("/dev/net/tun");
  ifreq request{};
  std::strncpy(request.ifr_name, "wire", IFNAMSIZ - 1);
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  if (::ioctl(tun, TUNSETIFF, &request) != 0) fail("a TUN device");
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket < 0) fail("a socket");
  set_address(socket, "wire", SIOCSIFADDR, address);
  set_address(socket, "wire", SIOCSIFNETMASK, "255.255.255.0");
  set_up(socket, "wire");
  set_up(socket, "lo");
  ::close(socket);
  return tun;
}

int own_namespace() { return ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); }

// Runs code on a thread of its own, which may move elsewhere.
void apart(const std::function<void()>& code) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      code();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

}  // namespace

std::string LossyWire::refusal() {
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      enter_side(kClientAddress);
    } catch (const std::exception&) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status == 0 ? "" : "network namespaces and TUN devices are not permitted here";
}

LossyWire::LossyWire(std::uint64_t seed) : random_(seed) {
  apart([this] {
    ends_[1] = enter_side(kDaemonAddress);
    daemon_side_ = own_namespace();
  });
  ends_[0] = enter_side(kClientAddress);
  thread_ = std::thread([this] { carry(); });
}

LossyWire::~LossyWire() {
  stopping_ = true;
  thread_.join();
  for (const int end : ends_) ::close(end);
  ::close(daemon_side_);
}

void LossyWire::on_daemon_side(const std::function<void()>& code) {
  apart([&] {
    if (::setns(daemon_side_, CLONE_NEWNET) != 0) fail("the daemon's namespace");
    code();
  });
}

void LossyWire::carry() {
  while (!stopping_) {
    std::array<pollfd, 2> wait = {pollfd{ends_[0], POLLIN, 0}, pollfd{ends_[1], POLLIN, 0}};
    const bool waiting = !under_way_[0].empty() || !under_way_[1].empty();
    ::poll(wait.data(), wait.size(), waiting ? 1 : 20);
    for (std::size_t from = 0; from < ends_.size(); ++from) {
      if ((wait[from].revents & POLLIN) != 0) take(from);
    }
    deliver();
  }
}

void LossyWire::take(std::size_t from) {
  std::array<unsigned char, kPacketBytes> buffer;
  ssize_t size = 0;
  while ((size = ::read(ends_[from], buffer.data(), buffer.size())) > 0) {
    if (swallows || random_() % 100 < loss) {
      ++lost;
      continue;
    }
    const auto due = Clock::now() + std::chrono::milliseconds(delay_ms);
    under_way_[1 - from].push_back({due, {buffer.begin(), buffer.begin() + size}});
  }
}

void LossyWire::deliver() {
  for (std::size_t to = 0; to < ends_.size(); ++to) {
    std::deque<Packet>& packets = under_way_[to];
    for (; !packets.empty() && packets.front().due <= Clock::now(); packets.pop_front()) {
      const std::vector<unsigned char>& bytes = packets.front().bytes;
      if (::write(ends_[to], bytes.data(), bytes.size()) > 0) ++carried;
    }
  }
}

}  // namespace gradwarden::testing
