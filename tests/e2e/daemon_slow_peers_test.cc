// Peers that connect and dawdle: raw sockets against a real gradwardend, which must go on answering
// the others and get its descriptors back.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>

#include "tests/e2e/guarded_daemon.h"
#include "tests/e2e/metrics_page.h"
#include "tests/full_length.h"

namespace gradwarden::testing {
namespace {

constexpr int kPeers = 200;

class Socket {
 public:
  explicit Socket(int port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  ~Socket() { ::close(socket_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  bool send(const std::string& bytes) const {
    return ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  // Whether the other end has closed the connection.
  bool ended() const {
    char bytes[4096];
    ssize_t count = 0;
    do {
      count = ::recv(socket_, bytes, sizeof bytes, MSG_DONTWAIT);
    } while (count > 0);
    return count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
  }

 private:
  int socket_;
};

using Sockets = std::vector<std::unique_ptr<Socket>>;

bool all_ended(const Sockets& sockets) {
  for (const auto& socket : sockets) {
    if (!socket->ended()) return false;
  }
  return true;
}

class SlowPeers : public GuardedDaemon {
 protected:
  void start_with_short_limits(const std::vector<std::string>& arguments = {}) {
    DaemonProcess::Options options;
    options.data_dir = path("data");
    options.arguments = arguments;
    // Short for who dawdles, and long enough for the test's own requests on a slow machine.
    options.config =
        "http: {max_connections: 256, max_connections_per_address: 128, request_timeout_seconds: 6,"
        " answer_timeout_seconds: 10}\n"
        "grpc: {handshake_timeout_seconds: 6}\n";
    daemon_ = std::make_unique<DaemonProcess>(options);
  }

  std::size_t descriptors() const {
    const std::filesystem::directory_iterator files("/proc/" + std::to_string(daemon_->pid()) +
                                                    "/fd");
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
  }

  Sockets connect(int port, const std::string& first_bytes) const {
    Sockets sockets;
    for (int i = 0; i < kPeers; ++i) {
      sockets.push_back(std::make_unique<Socket>(port));
      sockets.back()->send(first_bytes);
    }
    return sockets;
  }
};

TEST_F(SlowPeers, TwoHundredDribbledRequestsNeverKeepAScrapeFromItsAnswer) {
  start_with_short_limits();
  ASSERT_EQ(http_request(daemon_->http_port(), "/metrics").status, 200);
  const std::size_t before = descriptors();
  const Sockets slow = connect(daemon_->http_port(), "GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: ");
  // A byte now and then is what keeps a mere timeout of silence from acting.
  ASSERT_TRUE(soon([&] {
    EXPECT_EQ(http_request(daemon_->http_port(), "/metrics").status, 200);
    for (const auto& socket : slow) socket->send("a");
    return all_ended(slow);
  }));
  EXPECT_TRUE(soon([&] { return descriptors() <= before + 2; })) << descriptors();
}

TEST_F(SlowPeers, SilentConnectionsOfTwoHundredScrapersAreClosed) {
  start_with_short_limits(with_tls());
  const std::string curl = "--cacert authority.crt";
  ASSERT_EQ(http("https", "/metrics", curl), 200);
  const std::size_t before = descriptors();
  // Half of a TLS record, and nothing after it.
  const Sockets slow = connect(daemon_->http_port(), std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_EQ(http("https", "/metrics", curl), 200);
  EXPECT_TRUE(soon([&] { return all_ended(slow); }));
  EXPECT_TRUE(soon([&] { return descriptors() <= before + 2; })) << descriptors();
}

TEST_F(SlowPeers, HalfOpenGrpcConnectionsAreClosedWhileATrainerGoesOn) {
  start_with_short_limits(with_tls());
  IngestClient client(channel(authority_->file()));
  v1::IngestResponse welcome;
  ASSERT_TRUE(client.send(make_hello("run", "a1")));
  ASSERT_TRUE(client.receive(&welcome));
  const std::size_t before = descriptors();
  const Sockets slow = connect(daemon_->grpc_port(), std::string("\x16\x03\x01\x02\x00\x01", 6));
  ASSERT_TRUE(client.send(make_batch(1, 64)));
  EXPECT_TRUE(client.receive_until(64));
  EXPECT_TRUE(soon([&] { return all_ended(slow); }));
  EXPECT_TRUE(soon([&] { return descriptors() <= before + 2; })) << descriptors();
  ASSERT_TRUE(client.send(make_batch(65, 128)));
  EXPECT_TRUE(client.receive_until(128));
}

TEST_F(SlowPeers, ClearTextGrpcConnectionsWithoutAnyRequestAreClosed) {
  start_with_short_limits();
  ASSERT_TRUE(list_runs(clear_channel()).ok());
  const std::size_t before = descriptors();
  const Sockets slow = connect(daemon_->grpc_port(), "PRI * HT");
  EXPECT_TRUE(soon([&] { return all_ended(slow); }));
  EXPECT_TRUE(list_runs(clear_channel()).ok());
  EXPECT_TRUE(soon([&] { return descriptors() <= before + 2; })) << descriptors();
}

TEST_F(SlowPeers, HandshakesThatAreAbortedLeaveNoDescriptorBehind) {
  start_with_short_limits(with_tls());
  ASSERT_TRUE(list_runs(channel(authority_->file())).ok());
  ASSERT_EQ(http("https", "/metrics", "--cacert authority.crt"), 200);
  const std::size_t before = descriptors();
  // Half of them begin one and end it in the middle.
  const int handshakes = full_or(10'000, 2'000);
  for (int i = 0; i < handshakes / 2; ++i) {
    const Socket grpc(daemon_->grpc_port());
    const Socket http(daemon_->http_port());
    if (i % 2 == 0) {
      grpc.send("not TLS at all\r\n\r\n");
      http.send("GET / HTTP/1.1\r\n\r\n");
    }
  }
  EXPECT_TRUE(soon([&] { return descriptors() <= before + 2; })) << descriptors();
  EXPECT_TRUE(list_runs(channel(authority_->file())).ok());
  EXPECT_EQ(http("https", "/metrics", "--cacert authority.crt"), 200);
  // What peers cause does not fill the log.
  EXPECT_LT(daemon_->log().size(), 10'000U);
}

TEST_F(SlowPeers, HeadersAboveTheLimitAreRefused) {
  start_with_short_limits();
  const std::string large(64 << 10, 'a');
  const Socket socket(daemon_->http_port());
  socket.send("GET /metrics HTTP/1.1\r\nX-A: " + large + "\r\n\r\n");
  grpc::ClientContext context;
  context.AddMetadata("x-large", large);
  v1::ListRunsResponse response;
  EXPECT_FALSE(v1::QueryService::NewStub(clear_channel())->ListRuns(&context, {}, &response).ok());
  EXPECT_EQ(http_request(daemon_->http_port(), "/metrics").status, 200);
  EXPECT_TRUE(list_runs(clear_channel()).ok());
}

}  // namespace
}  // namespace gradwarden::testing
