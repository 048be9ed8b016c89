// One ingest stream: reads messages as long as its window and the daemon's budget allow, hands them
// to the worker of its run, and writes answers, joining those that wait for an earlier one to
// leave.
//
// gRPC's reactions, the worker and the store's writer call in from their threads. All of them
// change state under one lock and then pump(): one thread at a time starts what the state asks for,
// outside the lock, because gRPC may react before the call that started an operation has returned.
#ifndef GRADWARDEN_DAEMON_INGEST_INGEST_STREAM_H_
#define GRADWARDEN_DAEMON_INGEST_INGEST_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "daemon/ingest/run_worker.h"
#include "daemon/ingest/session.h"
#include "daemon/security/access.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::ingest {

class IngestService;

class IngestStream final : public Session,
                           public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                           public std::enable_shared_from_this<IngestStream> {
 public:
  IngestStream(IngestService& service, const security::Pass& pass)
      : service_(service), pass_(pass) {}

  // What the client showed when it came.
  const security::Pass& pass() const { return pass_; }
  void start() { pump(); }
  void resume();
  void send_retry_delay(std::chrono::milliseconds delay);

  void answer(const v1::IngestResponse& response, std::size_t bytes) override;
  void fail(const absl::Status& status) override;

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  enum class Action { kNone, kRead, kWrite, kFinish };

  void pump();
  Action next_action(std::unique_lock<std::mutex>& lock);
  bool may_finish();
  void take_message();
  void fail_locked(const absl::Status& status);
  absl::Status choose_worker(const std::string& bytes);
  // Asks the client to wait. Under mutex_.
  void hold_back();

  IngestService& service_;
  const security::Pass pass_;
  RunWorker* worker_ = nullptr;  // set by the first message; read side only
  // Set with it, before anything is handed to the worker.
  std::shared_ptr<RunLine> line_;
  grpc::ByteBuffer read_buffer_;
  grpc::ByteBuffer write_buffer_;

  std::mutex mutex_;
  // All below: guarded by mutex_.
  bool pumping_ = false;
  bool reading_ = false;
  bool writing_ = false;
  bool parked_ = false;
  bool half_closed_ = false;
  bool cancelled_ = false;
  bool finished_ = false;
  std::chrono::steady_clock::time_point held_until_{};
  std::size_t outstanding_ = 0;  // messages handed to the worker and not answered
  v1::IngestResponse pending_;
  bool has_pending_ = false;
  std::optional<grpc::Status> error_;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_INGEST_STREAM_H_
