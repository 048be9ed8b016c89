// The gRPC side of ingest: streams, their windows and the byte budget that they share. Everything
// here runs on gRPC's threads and never blocks; the work is done by the run workers.
//
// When the budget is used up, streams are no longer read, which fills the windows of HTTP/2 and
// makes the clients wait: nothing is dropped, no thread is held.
#ifndef GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_
#define GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "daemon/ingest/context.h"
#include "daemon/ingest/run_worker.h"
#include "gradwarden/v1/ingest.grpc.pb.h"

namespace gradwarden::ingest {

class IngestStream;

class IngestService final
    : public v1::IngestService::WithRawCallbackMethod_Ingest<v1::IngestService::Service> {
 public:
  // One reader per worker.
  IngestService(IngestContext& context, std::vector<std::unique_ptr<store::StoreReader>> readers);
  ~IngestService() override;

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Ingest(
      grpc::CallbackServerContext* call) override;

  // Refuses new streams and reads no more on the old ones; each ends once all it sent is answered.
  // True if all had ended by the deadline.
  bool drain(std::chrono::steady_clock::time_point deadline);
  // Asks the clients of all streams to hold back.
  void send_retry_delay(std::chrono::milliseconds delay);

  // ---- for streams ----
  RunWorker& worker_for(const std::string& run);
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  unsigned window() const { return context_.options.stream_window; }
  void message_received(std::size_t bytes);
  void message_done(std::size_t bytes);
  // False, after noting the stream down for a resume(), if the budget is used up.
  bool may_read(const std::shared_ptr<IngestStream>& stream);
  void stream_refused(grpc::StatusCode code);
  void message_too_large();
  void stream_ended(const std::shared_ptr<IngestStream>& stream);

 private:
  std::vector<std::shared_ptr<IngestStream>> open_streams() const;
  void resume_parked();

  IngestContext& context_;
  std::vector<std::unique_ptr<RunWorker>> workers_;
  std::atomic<bool> draining_{false};
  std::atomic<std::size_t> parked_count_{0};
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  std::set<std::shared_ptr<IngestStream>> streams_;    // guarded by mutex_
  std::vector<std::shared_ptr<IngestStream>> parked_;  // guarded by mutex_
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_
