// What the HTTP server does with requests that come while it ends, and with streams whose caller is
// no longer allowed to have them. Over real sockets.
#include "daemon/http/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "daemon/http/exchange.h"

namespace gradwarden::http {
namespace {

constexpr std::chrono::seconds kLimit{30};

sockaddr_in any_port() {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// One connection, with blocking calls that give up after the limit.
class Client {
 public:
  explicit Client(const sockaddr_in& server)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval limit{kLimit.count(), 0};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    EXPECT_EQ(::connect(socket_, reinterpret_cast<const sockaddr*>(&server), sizeof server), 0);
  }
  ~Client() { ::close(socket_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void ask(const std::string& path, const std::string& header = "") {
    const std::string text = "GET " + path + " HTTP/1.1\r\nHost: test\r\n" + header + "\r\n";
    ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
  }
  // Reads until `text` has come, and forgets all up to its end. False: it does not come.
  bool read_past(const std::string& text) {
    std::size_t at = 0;
    while ((at = unread_.find(text)) == std::string::npos) {
      if (!read()) return false;
    }
    unread_.erase(0, at + text.size());
    return true;
  }
  // The status of the next answer; 0: none.
  int status() {
    if (!read_past("HTTP/1.1 ")) return 0;
    while (unread_.size() < 3) {
      if (!read()) return 0;
    }
    const int status = std::atoi(unread_.c_str());
    return read_past("\r\n\r\n") ? status : 0;
  }
  // The server closes the connection, whatever it sends before.
  bool ends() {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (std::chrono::steady_clock::now() < deadline && read()) {
    }
    return at_end_;
  }

 private:
  bool read() {
    char buffer[4096];
    const ssize_t count = ::recv(socket_, buffer, sizeof buffer, 0);
    at_end_ = count == 0;
    if (count > 0) unread_.append(buffer, static_cast<std::size_t>(count));
    return count > 0;
  }

  int socket_;
  std::string unread_;
  bool at_end_ = false;
};

class HttpServerTest : public ::testing::Test {
 protected:
  void start(Routes routes, Gate gate = nullptr) {
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof address_;
    auto* address = reinterpret_cast<sockaddr*>(&address_);
    ASSERT_EQ(::bind(socket, address, size), 0);
    ASSERT_EQ(::listen(socket, 16), 0);
    ASSERT_EQ(::getsockname(socket, address, &size), 0);
    auto server = HttpServer::start(socket, std::move(routes), {}, std::move(gate));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  sockaddr_in address_ = any_port();
  std::atomic<bool> allowed_{true};
  std::unique_ptr<HttpServer> server_;
};

TEST(Waiting, LetsNoRequestWaitOnceItIsClosed) {
  Waiting waiting;
  ASSERT_TRUE(waiting.add());
  waiting.remove();
  waiting.close();
  EXPECT_FALSE(waiting.add());
}

TEST(Waiting, IsClosedWhileThoseThatCameBeforeStillWait) {
  Waiting waiting;
  ASSERT_TRUE(waiting.add());
  std::future<void> closed = std::async(std::launch::async, [&waiting] { waiting.close(); });
  const auto deadline = std::chrono::steady_clock::now() + kLimit;
  bool refused = false;
  while (!refused && std::chrono::steady_clock::now() < deadline) {
    refused = !waiting.add();
    if (!refused) waiting.remove();
  }
  EXPECT_TRUE(refused);
  waiting.remove();
  EXPECT_EQ(closed.wait_for(kLimit), std::future_status::ready);
}

TEST_F(HttpServerTest, ARequestToAnswerLaterIsRefusedWhileTheServerEnds) {
  std::promise<Answer> asked;
  start({{"/held", Route::later([&asked](const Request&, Answer answer) {
            asked.set_value(std::move(answer));
          })},
         {"/quick", Route::later([](const Request&, const Answer& answer) {
            answer({200, "quick\n"});
          })}});
  Client holding(address_);
  Client asking(address_);
  holding.ask("/held");
  const Answer held = asked.get_future().get();
  asking.ask("/quick");
  EXPECT_EQ(asking.status(), 200);
  // It cannot end before what is held is answered: so what is asked now comes while it ends.
  std::thread ending([this] { server_.reset(); });
  const auto deadline = std::chrono::steady_clock::now() + kLimit;
  int status = 200;
  while (status == 200 && std::chrono::steady_clock::now() < deadline) {
    asking.ask("/quick");
    status = asking.status();
  }
  EXPECT_EQ(status, 503);
  held({200, "held\n"});
  ending.join();
}

TEST_F(HttpServerTest, AStreamEndsWhenItsCallerIsNoLongerAllowedToHaveIt) {
  struct Ticks final : Stream {
    std::optional<std::string> next() override { return "data: tick\n\n"; }
  };
  start({{"/ticks", Route::stream([](const Request&) { return std::make_unique<Ticks>(); })}},
        [this](const Caller&) {
          return Admission{.still_allowed = [this] { return allowed_.load(); }};
        });
  Client client(address_);
  client.ask("/ticks", "Connection: close\r\n");
  ASSERT_TRUE(client.read_past("tick"));
  ASSERT_TRUE(client.read_past("tick"));
  allowed_ = false;
  EXPECT_TRUE(client.ends());
}

}  // namespace
}  // namespace gradwarden::http
