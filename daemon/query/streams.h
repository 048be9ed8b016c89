// The two server streams of the QueryService, as reactors. Internal to query/.
#ifndef GRADWARDEN_DAEMON_QUERY_STREAMS_H_
#define GRADWARDEN_DAEMON_QUERY_STREAMS_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/query/event_hub.h"
#include "daemon/query/history_cursor.h"
#include "daemon/query/reader_pool.h"
#include "daemon/security/access.h"
#include "gradwarden/v1/query.grpc.pb.h"

namespace gradwarden::query {

class QueryService;

grpc::Status to_grpc(const absl::Status& status);

// Reads a piece on the pool, writes it, and only then reads the next: at most one piece is in
// memory and one operation under way. The lock hands the cursor from one pool thread to the next.
class HistoryStream final : public grpc::ServerWriteReactor<v1::HistoryChunk> {
 public:
  HistoryStream(ReaderPool& readers, metrics::DaemonMetrics& metrics,
                const v1::StreamHistoryRequest& request);
  void OnWriteDone(bool ok) override;
  void OnDone() override { delete this; }

 private:
  void read_next(store::StoreReader& reader);

  ReaderPool& readers_;
  std::mutex mutex_;
  HistoryCursor cursor_;    // guarded by mutex_
  bool opened_ = false;     // guarded by mutex_
  v1::HistoryChunk chunk_;  // written under mutex_, then gRPC's until the write is done
};

// Events as they happen. Publisher and gRPC call in; state changes under one lock, operations start
// outside it, one thread at a time (as in ingest/ingest_stream.h).
class WatchStream final : public grpc::ServerWriteReactor<v1::Event>,
                          public std::enable_shared_from_this<WatchStream> {
 public:
  WatchStream(QueryService& service, EventHub& hub, metrics::DaemonMetrics& metrics,
              const security::Pass& pass)
      : service_(service), hub_(hub), metrics_(metrics), pass_(pass) {}

  // What the client showed when it came.
  const security::Pass& pass() const { return pass_; }
  // Begins to watch; events are held back until open_events() was called, once.
  void watch(const std::string& run);
  void open_events(std::deque<v1::Event> open);
  void fail(const absl::Status& status);
  void pump();

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  bool next_event();

  QueryService& service_;
  EventHub& hub_;
  metrics::DaemonMetrics& metrics_;
  const security::Pass pass_;
  EventHub::Id id_ = 0;
  v1::Event event_;  // being written

  std::mutex mutex_;
  // All below: guarded by mutex_.
  std::deque<v1::Event> open_;
  bool ready_ = false;  // open_ is known
  bool pumping_ = false;
  bool again_ = false;
  bool writing_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
  absl::Status error_;
};

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_STREAMS_H_
