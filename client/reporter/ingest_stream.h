// One gRPC ingest stream, without a thread of its own and without a call that waits.
#ifndef GRADWARDEN_CLIENT_REPORTER_INGEST_STREAM_H_
#define GRADWARDEN_CLIENT_REPORTER_INGEST_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "gradwarden/v1/ingest.grpc.pb.h"
#include "proto/secure_channel.h"

namespace gradwarden::reporter {

// Wakes the reporter's thread. Shared, because gRPC's threads may still be inside notify() when a
// stream is gone.
class Signal {
 public:
  void notify();
  // Returns when notified, or at the deadline.
  void wait_until(std::chrono::steady_clock::time_point deadline);

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool raised_ = false;
};

// Methods are called by the reporter's thread; the On... methods by gRPC's. Destroyed only after
// ended() has a value.
class IngestStream final : public grpc::ClientBidiReactor<v1::IngestRequest, v1::IngestResponse> {
 public:
  IngestStream(v1::IngestService::Stub& stub, std::shared_ptr<Signal> signal,
               const ChannelSecrets& secrets);

  bool writable();                         // no write is under way
  void write(v1::IngestRequest request);   // only when writable(); lost if the stream is ending
  std::vector<v1::IngestResponse> take();  // what has arrived since the last call
  void cancel();
  std::optional<grpc::Status> ended();

  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  const std::shared_ptr<Signal> signal_;
  grpc::ClientContext context_;
  v1::IngestRequest outgoing_;
  v1::IngestResponse incoming_;
  // Shared for the same reason as the signal: OnDone's last act is to unlock it.
  struct Shared {
    std::mutex mutex;
    bool writing = false;
    bool closing = false;  // nothing more may be started
    std::vector<v1::IngestResponse> responses;
    std::optional<grpc::Status> status;
  };
  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_INGEST_STREAM_H_
