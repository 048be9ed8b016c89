// A worker owns runs: every message of a run is handled by one thread, in the order of arrival on
// each stream, so that detection and deduplication need no locks.
//
// Its queue is bounded by its producers: a stream hands in no more than its window, a run and all
// runs together no more than Admission allows. Runs take turns.
#ifndef GRADWARDEN_DAEMON_INGEST_RUN_WORKER_H_
#define GRADWARDEN_DAEMON_INGEST_RUN_WORKER_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "daemon/ingest/attempt.h"
#include "daemon/ingest/attempt_directory.h"
#include "daemon/ingest/batch_processor.h"
#include "daemon/ingest/context.h"
#include "daemon/ingest/fair_queue.h"
#include "daemon/ingest/session.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::ingest {

class RunWorker {
 public:
  RunWorker(IngestContext& context, std::unique_ptr<store::StoreReader> reader);
  ~RunWorker();
  RunWorker(const RunWorker&) = delete;
  RunWorker& operator=(const RunWorker&) = delete;

  // Any thread.
  void submit(const std::shared_ptr<RunLine>& line, Inbound inbound);

 private:
  void run();
  void handle(Inbound& inbound);
  void handle_request(Inbound& inbound);
  // `size` is that of the whole message, which the answer gives back.
  void handle_batch(const std::shared_ptr<Session>& session, std::string bytes, std::size_t size);
  void handle_hello(const std::shared_ptr<Session>& session, const v1::Hello& hello,
                    std::size_t bytes);
  void handle_heartbeat(Session& session, const v1::Heartbeat& heartbeat, std::size_t bytes);
  void handle_goodbye(const std::shared_ptr<Session>& session, const v1::Goodbye& goodbye,
                      std::size_t bytes);
  void handle_closed(Session& session);
  void look_for_stalls();

  // Hands the outcome to the writer; after the commit the session gets `response`.
  void commit(const std::shared_ptr<Session>& session, Outcome outcome, v1::IngestResponse response,
              std::size_t bytes);
  using Arrival = std::chrono::steady_clock::time_point;
  // On the writer's thread.
  void observe_lag(Arrival arrived);
  void refuse(Session& session, const absl::Status& status, std::size_t bytes);

  IngestContext& context_;
  AttemptDirectory directory_;
  BatchProcessor processor_;
  Arrival arrived_{};               // of the message that is handled
  v1::ReportBatch batch_;           // reused: its messages keep their memory
  std::uint64_t last_look_ns_ = 0;  // for stalls

  std::mutex mutex_;
  std::condition_variable wake_;
  FairQueue queue_;        // guarded by mutex_, as are its lines
  bool stopping_ = false;  // guarded by mutex_
  std::thread thread_;     // last: starts in the constructor
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_RUN_WORKER_H_
