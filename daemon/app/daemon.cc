#include "daemon/app/daemon.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/app/exit_codes.h"
#include "daemon/app/listen.h"
#include "daemon/ingest/event_builder.h"
#include "proto/limits.h"

namespace gradwarden::app {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr milliseconds kRetryDelay{1000};
constexpr char kTextFormat[] = "text/plain; version=0.0.4; charset=utf-8";

std::uint64_t unix_now_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

StartError start_error(int code, const absl::Status& status) {
  return {code, std::string(status.message())};
}

unsigned worker_count(const ingest::IngestOptions& options) {
  if (options.workers != 0) return options.workers;
  return std::max(1U, std::thread::hardware_concurrency());
}

void set_serving(grpc::Server& server, bool serving) {
  grpc::HealthCheckServiceInterface* health = server.GetHealthCheckService();
  if (health == nullptr) return;
  health->SetServingStatus(serving);  // the server as a whole, ""
  health->SetServingStatus(v1::IngestService::service_full_name(), serving);
  health->SetServingStatus(v1::QueryService::service_full_name(), serving);
}

}  // namespace

Daemon::Daemon(const Config& config)
    : config_(config),
      runs_(config.metrics_max_runs, config.metrics_retention_seconds * kSecondNs),
      collector_(metrics_, runs_, GRADWARDEN_VERSION, &unix_now_ns),
      events_(config.query_watch_queue) {}

Daemon::~Daemon() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  http_.reset();
  readers_.reset();
  // The writer's completions reach into services, so its thread ends before they do.
  if (writer_ != nullptr) writer_->stop(steady_clock::now());
  serving_ingest_ = nullptr;
  server_.reset();
  query_.reset();
  ingest_.reset();
}

std::optional<StartError> Daemon::start() {
  // Liveness and "not ready yet" can be asked for while the store is opened.
  if (auto error = start_http()) return error;
  if (auto error = open_store()) return error;
  if (auto error = build_services()) return error;
  if (auto error = start_grpc()) return error;
  phase_ = Phase::kServing;
  spdlog::info("gradwardend {} serves: gRPC on port {}, HTTP on port {}, history in {}",
               GRADWARDEN_VERSION, grpc_port_, http_port_, config_.data_dir);
  return std::nullopt;
}

std::optional<StartError> Daemon::open_store() {
  absl::StatusOr<store::DataLock> lock = store::DataLock::acquire(config_.data_dir);
  if (!lock.ok()) {
    const bool held = absl::IsFailedPrecondition(lock.status());
    return start_error(held ? kExitDataLocked : kExitDataFolder, lock.status());
  }
  lock_ = *std::move(lock);
  auto store = store::SqliteStore::open({config_.data_dir, config_.durability});
  if (!store.ok()) {
    const bool newer = absl::IsUnimplemented(store.status());
    return start_error(newer ? kExitNewerHistory : kExitDataFolder, store.status());
  }
  store_ = *std::move(store);
  return std::nullopt;
}

std::optional<StartError> Daemon::build_services() {
  const unsigned workers = worker_count(config_.ingest);
  std::vector<std::unique_ptr<store::StoreReader>> readers;
  for (unsigned i = 0; i < workers + config_.query_threads; ++i) {
    auto reader = store_->open_reader();
    if (!reader.ok()) return start_error(kExitDataFolder, reader.status());
    readers.push_back(*std::move(reader));
  }
  const absl::StatusOr<store::HighestIds> ids = readers.front()->highest_ids();
  if (!ids.ok()) return start_error(kExitDataFolder, ids.status());

  writer_ = std::make_unique<store::CommitWriter>(*store_, store::CommitWriterOptions{},
                                                  observe_commits());
  context_.reset(new ingest::IngestContext{
      .options = config_.ingest,
      .version = GRADWARDEN_VERSION,
      .store = *store_,
      .writer = *writer_,
      .metrics = metrics_,
      .runs = runs_,
      .publish =
          [this](const v1::Event& event) {
            const bool minor = event.severity() == v1::SEVERITY_INFO || event.has_end_step();
            spdlog::log(minor ? spdlog::level::info : spdlog::level::warn,
                        ingest::event_line(event));
            events_.publish(event);
          },
      .now_ns = &unix_now_ns});
  context_->last_run_id = ids->run;
  context_->last_attempt_id = ids->attempt;
  context_->last_event_id = ids->event;
  const auto split = readers.begin() + workers;
  readers_ = std::make_unique<query::ReaderPool>(
      std::vector<std::unique_ptr<store::StoreReader>>(std::make_move_iterator(split),
                                                       std::make_move_iterator(readers.end())),
      config_.query_max_waiting);
  readers.resize(workers);
  ingest_ = std::make_unique<ingest::IngestService>(*context_, std::move(readers));
  serving_ingest_ = ingest_.get();
  query_ = std::make_unique<query::QueryService>(*readers_, events_, metrics_,
                                                 config_.query_max_watchers);
  return std::nullopt;
}

store::CommitObserver Daemon::observe_commits() {
  store::CommitObserver observer;
  observer.on_commit = [this](double taken, std::size_t) {
    metrics_.commit_seconds.observe(taken);
  };
  observer.on_failure = [this](const absl::Status& status) {
    metrics::count(metrics_.store_errors);
    if (!metrics_.store_failing.exchange(true)) {
      spdlog::error(
          "the store cannot commit: {}; nothing is acknowledged and clients keep their reports "
          "until "
          "it can: free disk space in {}, or check its permissions and the disk",
          status.ToString(), config_.data_dir);
    }
    if (ingest::IngestService* ingest = serving_ingest_) ingest->send_retry_delay(kRetryDelay);
  };
  observer.on_recovery = [this] {
    metrics_.store_failing = false;
    spdlog::info("the store commits again");
  };
  return observer;
}

std::optional<StartError> Daemon::start_http() {
  const absl::StatusOr<Address> address = parse_address(config_.http_listen);
  if (!address.ok()) return start_error(kExitUsage, address.status());
  const absl::StatusOr<int> socket = listen_on(*address);
  if (!socket.ok()) return start_error(kExitAddressInUse, socket.status());
  http_port_ = bound_port(*socket);
  auto server = http::HttpServer::start(*socket, routes(), config_.http);
  if (!server.ok()) return start_error(kExitInternal, server.status());
  http_ = *std::move(server);
  return std::nullopt;
}

std::optional<StartError> Daemon::start_grpc() {
  absl::StatusOr<Address> address = parse_address(config_.grpc_listen);
  if (!address.ok()) return start_error(kExitUsage, address.status());
  // gRPC only says that it failed; a socket of our own says why.
  const absl::StatusOr<int> probe = listen_on(*address);
  if (!probe.ok()) return start_error(kExitAddressInUse, probe.status());
  ::close(*probe);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address->text(), grpc::InsecureServerCredentials(), &port);
  // Without this a second daemon would share the port with the first.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A little above the contract's limit: what lies between is refused with a line that says so.
  builder.SetMaxReceiveMessageSize(2 * static_cast<int>(limits::kMaxMessageBytes));
  // Trainers ping to notice a dead daemon; a dead trainer is noticed the same way.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  builder.RegisterService(ingest_.get());
  builder.RegisterService(query_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return StartError{kExitAddressInUse, "cannot serve gRPC on " + address->text()};
  }
  grpc_port_ = static_cast<std::uint16_t>(port);
  set_serving(*server_, true);
  return std::nullopt;
}

http::Response Daemon::ready() const {
  switch (phase_.load()) {
    case Phase::kStarting:
      return {503, "not ready: starting\n"};
    case Phase::kDraining:
      return {503, "not ready: shutting down\n"};
    case Phase::kServing:
      break;
  }
  if (metrics_.store_failing) {
    return {503, "not ready: the store cannot commit, see the log\n"};
  }
  return {200, "ready\n"};
}

http::Routes Daemon::routes() {
  return {{"/metrics",
           [this] {
             return http::Response{200, collector_.text(), kTextFormat};
           }},
          {"/-/healthy",
           [] {
             return http::Response{200, "healthy\n"};
           }},
          {"/-/ready", [this] { return ready(); }}};
}

bool Daemon::drain() {
  phase_ = Phase::kDraining;
  const auto deadline = steady_clock::now() + seconds(config_.drain_seconds);
  set_serving(*server_, false);
  bool complete = ingest_->drain(deadline);
  query_->drain(std::min(deadline, steady_clock::now() + seconds(1)));
  complete = writer_->stop(deadline) && complete;
  server_->Shutdown(std::chrono::system_clock::now() + milliseconds(500));
  if (complete) {
    spdlog::info("gradwardend ended: everything received is stored and answered");
  } else {
    spdlog::warn("gradwardend ended with messages unanswered; their clients will send them again");
  }
  return complete;
}

}  // namespace gradwarden::app
