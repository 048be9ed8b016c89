// A proxy of the ingest service that stands between reporters and a real daemon and does what
// networks and restarts do: ends streams with UNAVAILABLE, before or after the daemon has got the
// batch, and sends batches twice and behind later ones. What the daemon answers is passed on,
// unless the stream ends first. For tests.
//
// Settings may change at any time; gRPC's threads serve.
#ifndef GRADWARDEN_TESTS_E2E_FAULTY_PROXY_H_
#define GRADWARDEN_TESTS_E2E_FAULTY_PROXY_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "gradwarden/v1/ingest.grpc.pb.h"

namespace gradwarden::testing {

class FaultyProxy final : public v1::IngestService::Service {
 public:
  // Chances for each batch, of 100.
  std::atomic<unsigned> unavailable{0};  // half of these after the daemon has got it
  std::atomic<unsigned> duplicate{0};
  std::atomic<unsigned> reorder{0};
  // What happened.
  std::atomic<std::uint64_t> ended{0}, doubled{0}, reordered{0};

  FaultyProxy(std::string daemon, std::uint64_t seed) : daemon_(std::move(daemon)), random_(seed) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FaultyProxy() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Of all reports that came in here, copies of the same one included.
  std::uint64_t forwarded() const { return forwarded_; }

  grpc::Status Ingest(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::IngestResponse, v1::IngestRequest>* client) override {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    const auto stub = v1::IngestService::NewStub(
        grpc::CreateCustomChannel(daemon_, grpc::InsecureChannelCredentials(), arguments));
    grpc::ClientContext upstream;
    const auto daemon = stub->Ingest(&upstream);
    std::atomic<bool> ending{false};
    std::thread back([&] {
      v1::IngestResponse response;
      while (daemon->Read(&response) && client->Write(response)) {
      }
      // The daemon's end ends the client's stream too.
      if (!ending) context->TryCancel();
    });
    const bool orderly = forward(*client, *daemon);
    ending = true;
    if (orderly) {
      daemon->WritesDone();
    } else {
      upstream.TryCancel();
    }
    back.join();
    const grpc::Status status = daemon->Finish();
    return orderly ? status : grpc::Status(grpc::StatusCode::UNAVAILABLE, "a fault");
  }

 private:
  using Client = grpc::ServerReaderWriter<v1::IngestResponse, v1::IngestRequest>;
  using Daemon = grpc::ClientReaderWriter<v1::IngestRequest, v1::IngestResponse>;

  bool happens(unsigned of_100) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return random_() % 100 < of_100;
  }
  bool send(Daemon& daemon, const v1::IngestRequest& request) {
    forwarded_ += static_cast<std::uint64_t>(request.batch().reports_size());
    return daemon.Write(request);
  }

  // False if a fault ended the stream, or the daemon did.
  bool forward(Client& client, Daemon& daemon) {
    std::optional<v1::IngestRequest> held;
    v1::IngestRequest request;
    while (client.Read(&request)) {
      const bool batch = request.has_batch();
      if (batch && happens(unavailable)) {
        if (happens(50)) send(daemon, request);
        return count_end();
      }
      if (batch && !held && happens(reorder)) {
        held = request;
        continue;
      }
      if (!send(daemon, request)) return false;
      if (batch && happens(duplicate)) {
        ++doubled;
        if (!send(daemon, request)) return false;
      }
      if (!held) continue;
      ++reordered;
      if (!send(daemon, *held)) return false;
      held.reset();
    }
    return !held || send(daemon, *held);
  }
  bool count_end() {
    ++ended;
    return false;
  }

  const std::string daemon_;
  std::mutex mutex_;
  std::mt19937_64 random_;  // guarded by mutex_
  std::atomic<std::uint64_t> forwarded_{0};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_FAULTY_PROXY_H_
