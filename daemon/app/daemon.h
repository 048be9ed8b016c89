// The daemon as an object: built from a configuration, serving while it lives, stopped by drain().
//
// start() and drain() are called by one thread. Parts are members in the order in which they depend
// on each other, so that they are destroyed the other way round.
#ifndef GRADWARDEN_DAEMON_APP_DAEMON_H_
#define GRADWARDEN_DAEMON_APP_DAEMON_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "daemon/alerts/alert_service.h"
#include "daemon/alerts/alerter.h"
#include "daemon/app/config.h"
#include "daemon/http/http_server.h"
#include "daemon/ingest/context.h"
#include "daemon/ingest/ingest_service.h"
#include "daemon/metrics/collector.h"
#include "daemon/query/event_hub.h"
#include "daemon/query/query_service.h"
#include "daemon/query/reader_pool.h"
#include "daemon/security/access.h"
#include "daemon/security/tls_store.h"
#include "daemon/store/commit_writer.h"
#include "daemon/store/data_lock.h"
#include "daemon/store/retention.h"
#include "daemon/store/sqlite_store.h"

namespace gradwarden::app {

// Why the daemon did not start: one line and the exit code that goes with it.
struct StartError {
  int exit_code = 0;
  std::string message;
};

class Daemon {
 public:
  explicit Daemon(const Config& config);
  ~Daemon();
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Nothing if it serves.
  std::optional<StartError> start();
  // Ready turns false, what was received is answered and committed, listeners close. False if
  // something had to be left unanswered; its clients will send it again.
  bool drain();

  // Takes over what may change while it runs: limits, retention, log level, the token file. False,
  // having said why, if nothing was taken over. What needs a restart is said too.
  bool reload(const Config& config);
  // Says and counts that a configuration was bad.
  void refuse_reload(const absl::Status& why);
  // A commit found the history damaged: the daemon should end, and its next start sets it aside.
  bool found_damage() const { return found_damage_; }
  // Takes over tokens and certificates whose files have changed. To be called about once a second.
  void renew_credentials();

  std::uint16_t grpc_port() const { return grpc_port_; }
  std::uint16_t http_port() const { return http_port_; }

 private:
  enum class Phase { kStarting, kServing, kDraining };

  std::optional<StartError> open_credentials();
  std::optional<StartError> open_store();
  std::optional<StartError> build_services();
  // What happened while no alerts could be sent is told now.
  std::optional<StartError> build_alerts(store::StoreReader& reader, std::uint64_t last_event);
  std::optional<StartError> start_http();
  std::optional<StartError> start_grpc();
  http::Admission admit(const http::Caller& caller);
  std::optional<StartError> start_retention();
  store::CommitObserver observe_commits();
  void observe_retention(const absl::StatusOr<store::Pruned>& pruned);
  http::Response ready() const;
  http::Routes routes();

  const Config config_;
  std::atomic<bool> found_damage_{false};
  std::atomic<Phase> phase_{Phase::kStarting};
  metrics::DaemonMetrics metrics_;
  metrics::RunRegistry runs_;
  metrics::Collector collector_;
  query::EventHub events_;
  security::Access access_;
  std::unique_ptr<security::TlsStore> tls_;  // null: clear text
  std::optional<store::DataLock> lock_;
  std::unique_ptr<store::SqliteStore> store_;
  std::unique_ptr<store::Retention> retention_;
  std::unique_ptr<alerts::Alerter> alerter_;
  std::unique_ptr<alerts::AlertService> alert_service_;
  // The writer's completions use the workers, and the workers the writer: see ~Daemon.
  std::unique_ptr<store::CommitWriter> writer_;
  std::unique_ptr<ingest::IngestContext> context_;
  std::unique_ptr<ingest::IngestService> ingest_;
  std::atomic<ingest::IngestService*> serving_ingest_{nullptr};
  std::unique_ptr<query::ReaderPool> readers_;
  std::atomic<query::ReaderPool*> serving_readers_{nullptr};  // for the page, once there are any
  std::unique_ptr<query::QueryService> query_;
  std::unique_ptr<http::HttpServer> http_;
  std::unique_ptr<grpc::Server> server_;
  std::uint16_t grpc_port_ = 0;
  std::uint16_t http_port_ = 0;
};

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_DAEMON_H_
