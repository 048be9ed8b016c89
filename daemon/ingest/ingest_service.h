// The gRPC side of ingest: streams, their windows and the memory that they share. Everything here
// runs on gRPC's threads and never blocks; the work is done by the run workers.
//
// A stream whose run has its share of the memory under way is no longer read, which fills the
// windows of HTTP/2, and its client is asked to wait: nothing is dropped, no thread is held. What
// was being read and no longer fits is refused: its stream ends with RESOURCE_EXHAUSTED after a
// delay was named, and the client, which keeps what is not acknowledged, sends it again.
#ifndef GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_
#define GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <map>
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
  // Ends the streams whose token is no longer good. To be called when the tokens have changed.
  void end_unadmitted();
  // Asks the clients of all streams to hold back.
  void send_retry_delay(std::chrono::milliseconds delay);

  // ---- for streams ----
  RunWorker& worker_for(const std::string& run);
  std::shared_ptr<RunLine> line_for(const std::string& run);
  bool draining() const { return draining_.load(std::memory_order_relaxed); }
  unsigned window() const { return context_.options.stream_window; }
  // False if there is no memory for the message: it is to be refused.
  bool message_received(RunLine& line, std::size_t bytes);
  void message_done(RunLine& line, std::size_t bytes);
  // False, after noting the stream down for a resume(), if the run has its share under way. The
  // line is null before the stream's first message.
  bool may_read(const std::shared_ptr<IngestStream>& stream, const RunLine* line);
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
  // Of runs that have streams, and some that had. Guarded by mutex_.
  std::map<std::string, std::weak_ptr<RunLine>> lines_;
  std::size_t lines_after_clearing_ = 0;  // guarded by mutex_
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_INGEST_SERVICE_H_
