// The QueryService of gradwarden.v1 on gRPC's callback API. Reads run on the reader pool; a stream
// reads its next piece when the client has taken the last one.
#ifndef GRADWARDEN_DAEMON_QUERY_QUERY_SERVICE_H_
#define GRADWARDEN_DAEMON_QUERY_QUERY_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>

#include "daemon/metrics/daemon_metrics.h"
#include "daemon/query/event_hub.h"
#include "daemon/query/reader_pool.h"
#include "daemon/security/access.h"
#include "gradwarden/v1/query.grpc.pb.h"

namespace gradwarden::query {

class WatchStream;

class QueryService final : public v1::QueryService::CallbackService {
 public:
  // `access` null: nobody is asked for a token.
  QueryService(ReaderPool& readers, EventHub& events, metrics::DaemonMetrics& metrics,
               std::size_t max_watchers, security::Access* access = nullptr);

  grpc::ServerUnaryReactor* ListRuns(grpc::CallbackServerContext* call,
                                     const v1::ListRunsRequest* request,
                                     v1::ListRunsResponse* response) override;
  grpc::ServerUnaryReactor* GetRun(grpc::CallbackServerContext* call,
                                   const v1::GetRunRequest* request,
                                   v1::GetRunResponse* response) override;
  grpc::ServerUnaryReactor* ListEvents(grpc::CallbackServerContext* call,
                                       const v1::ListEventsRequest* request,
                                       v1::ListEventsResponse* response) override;
  grpc::ServerUnaryReactor* GetFlight(grpc::CallbackServerContext* call,
                                      const v1::GetFlightRequest* request,
                                      v1::GetFlightResponse* response) override;
  grpc::ServerWriteReactor<v1::HistoryChunk>* StreamHistory(
      grpc::CallbackServerContext* call, const v1::StreamHistoryRequest* request) override;
  grpc::ServerWriteReactor<v1::Event>* WatchEvents(grpc::CallbackServerContext* call,
                                                   const v1::WatchEventsRequest* request) override;

  // Ends all streams of events, also those to come, and waits until they are gone or the deadline.
  void drain(std::chrono::steady_clock::time_point deadline);

  // Ends the streams whose token is no longer good. To be called when the tokens have changed.
  void end_unadmitted();

  // ---- for WatchStream ----
  bool draining() const { return draining_.load(); }
  void watch_ended(const std::shared_ptr<WatchStream>& stream);

 private:
  // Every call begins here; OK if the caller may read.
  grpc::Status admit(const grpc::CallbackServerContext& call, security::Pass* pass = nullptr);

  ReaderPool& readers_;
  EventHub& events_;
  metrics::DaemonMetrics& metrics_;
  const std::size_t max_watchers_;
  security::Access* const access_;
  std::atomic<bool> draining_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::set<std::shared_ptr<WatchStream>> watchers_;  // guarded by mutex_
};

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_QUERY_SERVICE_H_
