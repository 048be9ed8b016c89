// The HTTP port: the input is what a client sends on one connection, before an end of headers, an
// orderly request, and the end of what it has to say. The server is the daemon's own, with the
// page's routes over a history of one run, asks for tokens as the daemon does, and has to go on
// whatever comes.
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <vector>

#include "daemon/http/http_server.h"
#include "daemon/page/page_routes.h"
#include "daemon/query/reader_pool.h"
#include "daemon/security/access.h"
#include "daemon/store/sqlite_store.h"
#include "gradwarden/v1/ingest.pb.h"
#include "gradwarden/v1/query.pb.h"
#include "tests/fuzz/input.h"

namespace gradwarden::fuzz {
namespace {

constexpr std::uint64_t kSteps = 300;
// So that most inputs are answered at once, however they end. The others wait for a body.
constexpr std::string_view kEnd = "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
constexpr timeval kPatience{.tv_sec = 0, .tv_usec = 20'000};

store::CommitItem one_run() {
  store::CommitItem item;
  v1::Hello hello;
  hello.set_run("run");
  hello.set_attempt("a1");
  hello.set_world_size(2);
  hello.add_groups("layer0");
  item.new_run = {1, "run", 5};
  item.new_attempt = {1, 1, "a1", 1, 6, hello.SerializeAsString()};
  item.attempt_id = 1;
  v1::ReportBatch batch;
  store::RollupDelta rollup{0, {}};
  for (std::uint64_t step = 1; step <= kSteps; ++step) {
    v1::Report& report = *batch.add_reports();
    report.set_sequence(step);
    report.set_step(step);
    report.set_grad_norm(1);
    report.set_clip_coefficient(1);
    report.set_decision(v1::DECISION_APPLY);
    report.set_loss(2);
    report.mutable_group_norms()->Add(1);
    store::add(rollup.rollup, {.step = step, .grad_norm = 1, .loss = 2});
  }
  item.segments.push_back({0, 0, 1, kSteps, 1, kSteps, batch.SerializeAsString()});
  item.rollups.push_back(rollup);
  v1::Event event;
  event.set_id(1);
  event.set_revision(1);
  event.set_run("run");
  event.set_attempt("a1");
  event.set_start_step(10);
  item.events.push_back({1, 1, 1, 1, true, event.SerializeAsString()});
  item.progress = store::AttemptProgress{.last_report_ns = 7,
                                         .reports = kSteps,
                                         .step_reports = kSteps,
                                         .first_step = 1,
                                         .last_step = kSteps,
                                         .grad_norm = 1};
  return item;
}

class Server {
 public:
  Server() : store_(*store::SqliteStore::open({folder_.path("."), store::Durability::kProcess})) {
    spdlog::set_level(spdlog::level::off);
    const store::CommitItem item = one_run();
    promise(store_->commit({&item}).ok(), "the history can be written");
    std::vector<std::unique_ptr<store::StoreReader>> readers;
    readers.push_back(*store_->open_reader());
    pool_ = std::make_unique<query::ReaderPool>(std::move(readers), 16);
    folder_.write("tokens", "read:0123456789abcdef\n");
    promise(access_.load(folder_.path("tokens")).ok(), "the tokens can be read");
    http::Routes routes;
    page::add_routes(routes, [this] { return pool_.get(); });
    routes.emplace("/metrics", http::Handler([] { return http::Response{}; }));
    http::HttpServerOptions options;
    options.threads = 1;
    options.max_streams = 0;  // a stream has no end, and an input must have one
    server_ = *http::HttpServer::start(listen(), std::move(routes), options, gate());
  }

  // Sends all of it, and reads until the server closes or has nothing to say.
  void talk(std::string_view input) {
    const std::string all = std::string(input).append(kEnd);
    std::string_view bytes = all;
    const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = address_of();
    promise(::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
            "the server takes connections");
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof kPatience);
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;  // it has answered already and closed
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    ::shutdown(socket, SHUT_WR);
    std::string answer;
    char buffer[4096];
    ssize_t count = 0;
    while ((count = ::recv(socket, buffer, sizeof buffer, 0)) > 0) {
      if (answer.size() < sizeof buffer) answer.append(buffer, static_cast<std::size_t>(count));
    }
    ::close(socket);
    promise(answer.empty() || answer.rfind("HTTP/1.", 0) == 0, "an answer is one of HTTP");
    promise(answer.find(" 500 ") != 8, "no request is an internal error");
  }

 private:
  // A bad token is looked at and let in: so both sides of the gate are reached.
  http::Gate gate() {
    return [this](const http::Caller& caller) -> http::Admission {
      access_.allow(caller.authorization, security::Scope::kRead, caller.address).IgnoreError();
      return {};
    };
  }
  sockaddr_un address_of() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    folder_.path("socket").copy(address.sun_path, sizeof address.sun_path - 1);
    return address;
  }
  int listen() const {
    const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const sockaddr_un address = address_of();
    promise(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                ::listen(socket, 16) == 0,
            "a socket can be made");
    return socket;
  }

  Folder folder_;
  std::unique_ptr<store::SqliteStore> store_;
  std::unique_ptr<query::ReaderPool> pool_;
  metrics::DaemonMetrics metrics_;
  security::Access access_{metrics_};
  std::unique_ptr<http::HttpServer> server_;
};

}  // namespace
}  // namespace gradwarden::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static gradwarden::fuzz::Server server;
  server.talk(gradwarden::fuzz::text_of(data, size));
  return 0;
}
