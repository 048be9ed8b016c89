#include "daemon/app/daemon.h"

#include <grpcpp/health_check_service_interface.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/app/exit_codes.h"
#include "daemon/app/grpc_options.h"
#include "daemon/app/listen.h"
#include "daemon/app/start_parts.h"
#include "daemon/ingest/event_builder.h"
#include "daemon/store/recovery.h"
#include "proto/limits.h"

namespace gradwarden::app {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr milliseconds kRetryDelay{1000};

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
      events_(config.query_watch_queue),
      access_(metrics_) {
  metrics_.sinks = std::vector<metrics::SinkMetrics>(config_.alerts.sinks.size());
  for (std::size_t i = 0; i < metrics_.sinks.size(); ++i) {
    const bool webhook = config_.alerts.sinks[i].type == alerts::SinkType::kWebhook;
    metrics_.sinks[i].type = webhook ? "webhook" : "alertmanager";
  }
}

Daemon::~Daemon() {
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  http_.reset();
  readers_.reset();
  retention_.reset();
  // The writer's completions reach into services, so its thread ends before they do.
  if (writer_ != nullptr) writer_->stop(steady_clock::now());
  serving_ingest_ = nullptr;
  server_.reset();
  query_.reset();
  ingest_.reset();
}

std::optional<StartError> Daemon::start() {
  if (auto error = open_credentials()) return error;
  // Liveness and "not ready yet" can be asked for while the store is opened.
  if (auto error = start_http()) return error;
  if (auto error = open_store()) return error;
  if (auto error = build_services()) return error;
  if (auto error = start_retention()) return error;
  if (auto error = start_grpc()) return error;
  phase_ = Phase::kServing;
  spdlog::info("gradwardend {} serves: gRPC on port {}, HTTP on port {}, history in {}; {}, {}",
               GRADWARDEN_VERSION, grpc_port_, http_port_, config_.data_dir,
               tls_ == nullptr                 ? "clear text"
               : config_.tls.client_ca.empty() ? "TLS"
                                               : "mutual TLS",
               access_.asks_for_tokens() ? "callers need a token" : "callers need no token");
  return std::nullopt;
}

std::optional<StartError> Daemon::open_credentials() {
  if (absl::Status status = access_.load(config_.token_file); !status.ok()) {
    return start_error(kExitUsage, status);
  }
  if (config_.tls.certificate.empty()) return std::nullopt;
  auto tls = security::TlsStore::open(config_.tls, metrics_);
  if (!tls.ok()) return start_error(kExitUsage, tls.status());
  tls_ = *std::move(tls);
  return std::nullopt;
}

void Daemon::refuse_reload(const absl::Status& why) {
  metrics::count(metrics_.reload_failures);
  spdlog::error("the configuration stays as it was: {}", std::string(why.message()));
}

bool Daemon::reload(const Config& config) {
  absl::Status status = check_files(config);
  if (status.ok() && config.token_file.empty() != config_.token_file.empty()) {
    status = absl::InvalidArgumentError(
        "security.token_file can be renewed, but neither begun nor "
        "left out without a restart");
  }
  if (status.ok()) status = access_.load(config.token_file);
  if (!status.ok()) {
    refuse_reload(status);
    return false;
  }
  spdlog::set_level(spdlog::level::from_str(config.log_level));
  context_->limits.set(config.ingest);
  retention_->set_limits(config.retention.limits);
  ingest_->end_unadmitted();
  query_->end_unadmitted();
  metrics::count(metrics_.reloads);
  spdlog::info(
      "reloaded: limits, retention, tokens and log level are those of the configuration; "
      "what else changed in it waits for a restart");
  return true;
}

void Daemon::renew_credentials() {
  if (access_.reload_if_changed()) {
    ingest_->end_unadmitted();
    query_->end_unadmitted();
  }
  if (tls_ == nullptr || !tls_->reload_if_changed()) return;
  const absl::Status renewed = http_->renew(certificates_of(tls_->material()));
  if (!renewed.ok()) spdlog::error("{}; it keeps the old one", std::string(renewed.message()));
}

std::optional<StartError> Daemon::open_store() {
  absl::StatusOr<store::DataLock> lock = store::DataLock::acquire(config_.data_dir);
  if (!lock.ok()) {
    const bool held = absl::IsFailedPrecondition(lock.status());
    return start_error(held ? kExitDataLocked : kExitDataFolder, lock.status());
  }
  lock_ = *std::move(lock);
  store::Recovery recovery;
  auto store = store::open_or_recover({config_.data_dir, config_.durability}, recovery);
  if (!store.ok()) {
    const bool newer = absl::IsUnimplemented(store.status());
    return start_error(newer ? kExitNewerHistory : kExitDataFolder, store.status());
  }
  store_ = *std::move(store);
  if (recovery.damage.empty()) return std::nullopt;
  metrics::count(metrics_.damaged_files);
  metrics_.recovered_reports = recovery.reports;
  metrics_.unrecovered_rows = recovery.lost_rows;
  spdlog::error(
      "the history was damaged ({}) and lies in {} now; recovered into a new one: {} attempts, {} "
      "events, {} reports in {} segments; {}{} rows could not be recovered",
      recovery.damage, recovery.set_aside, recovery.attempts, recovery.events, recovery.reports,
      recovery.segments, recovery.end_known ? "" : "at least ", recovery.lost_rows);
  return std::nullopt;
}

std::optional<StartError> Daemon::start_retention() {
  auto retention = store::Retention::open(
      store_->path(), config_.retention, &unix_now_ns,
      [this](const absl::StatusOr<store::Pruned>& pruned) { observe_retention(pruned); });
  if (!retention.ok()) return start_error(kExitDataFolder, retention.status());
  retention_ = *std::move(retention);
  retention_->start();
  return std::nullopt;
}

void Daemon::observe_retention(const absl::StatusOr<store::Pruned>& pruned) {
  if (!pruned.ok()) {
    spdlog::warn("old reports could not be deleted: {}", pruned.status().ToString());
    return;
  }
  metrics_.store_bytes = pruned->bytes_in_use;
  metrics::count(metrics_.pruned_reports, pruned->reports);
  if (pruned->reports != 0) {
    spdlog::info("deleted {} old reports; the history has {} bytes", pruned->reports,
                 pruned->bytes_in_use);
  }
  if (pruned->above_limit) {
    spdlog::warn(
        "the history has {} bytes, more than store.max_bytes, all younger than "
        "store.protect_seconds",
        pruned->bytes_in_use);
  }
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

  if (auto error = build_alerts(*readers.front(), ids->event)) return error;
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
            alerter_->publish(event);
          },
      .now_ns = &unix_now_ns,
      .access = &access_,
      .worker_count = workers});
  context_->last_run_id = ids->run;
  context_->last_attempt_id = ids->attempt;
  // While the store failed, people may have been told of events that it never got: their ids are
  // not given again.
  context_->last_event_id = std::max(ids->event, alerter_->last_event_id());
  const auto split = readers.begin() + workers;
  readers_ = std::make_unique<query::ReaderPool>(
      std::vector<std::unique_ptr<store::StoreReader>>(std::make_move_iterator(split),
                                                       std::make_move_iterator(readers.end())),
      config_.query_max_waiting);
  readers.resize(workers);
  ingest_ = std::make_unique<ingest::IngestService>(*context_, std::move(readers));
  serving_ingest_ = ingest_.get();
  serving_readers_ = readers_.get();
  query_ = std::make_unique<query::QueryService>(*readers_, events_, metrics_,
                                                 config_.query_max_watchers, &access_);
  return std::nullopt;
}

store::CommitObserver Daemon::observe_commits() {
  store::CommitObserver observer;
  observer.on_commit = [this](double taken, std::size_t) {
    metrics_.commit_seconds.observe(taken);
  };
  observer.on_failure = [this](const absl::Status& status) {
    metrics::count(metrics_.store_errors);
    if (absl::IsDataLoss(status) && !found_damage_.exchange(true)) {
      store::mark_damaged(config_.data_dir);
    }
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

std::optional<StartError> Daemon::start_grpc() {
  absl::StatusOr<Address> address = parse_address(config_.grpc_listen);
  if (!address.ok()) return start_error(kExitUsage, address.status());
  // gRPC only says that it failed; a socket of our own says why.
  const absl::StatusOr<int> probe = listen_on(*address);
  if (!probe.ok()) return start_error(kExitAddressInUse, probe.status());
  ::close(*probe);

  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(
      address->text(),
      tls_ == nullptr ? grpc::InsecureServerCredentials() : tls_->grpc_credentials(), &port);
  configure_grpc(config_, access_.asks_for_tokens(), builder);
  builder.RegisterService(ingest_.get());
  builder.RegisterService(query_.get());
  builder.RegisterService(alert_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port == 0) {
    return StartError{kExitAddressInUse, "cannot serve gRPC on " + address->text()};
  }
  grpc_port_ = static_cast<std::uint16_t>(port);
  set_serving(*server_, true);
  return std::nullopt;
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
