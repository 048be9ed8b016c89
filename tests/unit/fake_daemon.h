// An ingest service in the test's own process whose behaviour the test scripts.
#ifndef GRADWARDEN_TESTS_UNIT_FAKE_DAEMON_H_
#define GRADWARDEN_TESTS_UNIT_FAKE_DAEMON_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>

#include "gradwarden/v1/ingest.grpc.pb.h"

namespace gradwarden::test {

class FakeDaemon final : public v1::IngestService::Service {
 public:
  // Called for every batch; returns what is answered. Unset: acknowledges all of it.
  std::function<v1::IngestResponse(const v1::ReportBatch&)> on_batch;
  // Ends each stream with this status after so many batches; 0: never.
  std::atomic<int> end_after_batches = 0;
  grpc::Status end_status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting");
  grpc::Status hello_status = grpc::Status::OK;

  explicit FakeDaemon(int port = 0) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeDaemon() override { stop(); }

  void stop() {
    if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  int port() const { return port_; }

  std::map<std::uint64_t, v1::Report> stored() {
    const std::lock_guard lock(mutex_);
    return stored_;
  }
  std::vector<std::uint64_t> order() {
    const std::lock_guard lock(mutex_);
    return order_;
  }
  v1::Hello hello() {
    const std::lock_guard lock(mutex_);
    return hello_;
  }
  int heartbeats() {
    const std::lock_guard lock(mutex_);
    return heartbeats_;
  }
  v1::Goodbye goodbye() {
    const std::lock_guard lock(mutex_);
    return goodbye_;
  }
  int goodbyes() {
    const std::lock_guard lock(mutex_);
    return goodbyes_;
  }

  grpc::Status Ingest(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::IngestResponse, v1::IngestRequest>* stream) override {
    if (!hello_status.ok()) return hello_status;
    int batches = 0;
    v1::IngestRequest request;
    while (stream->Read(&request)) {
      v1::IngestResponse response;
      if (request.has_batch()) {
        if (end_after_batches != 0 && batches == end_after_batches) return end_status;
        ++batches;
        response = take(request.batch());
      } else if (request.has_hello()) {
        const std::lock_guard lock(mutex_);
        hello_ = request.hello();
        response.mutable_welcome()->set_daemon_version("fake");
      } else {
        const std::lock_guard lock(mutex_);
        heartbeats_ += request.has_heartbeat() ? 1 : 0;
        goodbyes_ += request.has_goodbye() ? 1 : 0;
        if (request.has_goodbye()) goodbye_ = request.goodbye();
        if (!request.has_goodbye()) continue;
        response.set_goodbye(true);
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

 private:
  v1::IngestResponse take(const v1::ReportBatch& batch) {
    v1::IngestResponse response;
    if (on_batch) {
      response = on_batch(batch);
    } else {
      for (const auto& report : batch.reports()) {
        auto& range = *response.mutable_acknowledgement()->add_stored();
        range.set_first(report.sequence());
        range.set_last(report.sequence());
      }
    }
    const std::lock_guard lock(mutex_);
    for (const auto& report : batch.reports()) {
      for (const auto& range : response.acknowledgement().stored()) {
        if (report.sequence() < range.first() || report.sequence() > range.last()) continue;
        stored_.emplace(report.sequence(), report);
        order_.push_back(report.sequence());
      }
    }
    return response;
  }

  std::mutex mutex_;
  v1::Hello hello_;
  std::map<std::uint64_t, v1::Report> stored_;
  std::vector<std::uint64_t> order_;
  int heartbeats_ = 0;
  int goodbyes_ = 0;
  v1::Goodbye goodbye_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_FAKE_DAEMON_H_
