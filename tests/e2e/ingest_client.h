// A small ingest client for tests: one stream, blocking calls, and helpers that make valid reports.
//
// One thread per client.
#ifndef GRADWARDEN_TESTS_E2E_INGEST_CLIENT_H_
#define GRADWARDEN_TESTS_E2E_INGEST_CLIENT_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gradwarden/v1/ingest.grpc.pb.h"
#include "gradwarden/v1/query.grpc.pb.h"

namespace gradwarden::testing {

inline v1::Hello make_hello(const std::string& run, const std::string& attempt,
                            std::uint32_t rank = 0, std::uint32_t world_size = 1) {
  v1::Hello hello;
  hello.set_run(run);
  hello.set_attempt(attempt);
  hello.set_rank(rank);
  hello.set_world_size(world_size);
  hello.set_started_unix_ns(1'700'000'000'000'000'000);
  return hello;
}

// A quiet step: norm near 1, applied.
inline v1::Report make_report(std::uint64_t sequence, std::uint64_t step) {
  v1::Report report;
  report.set_sequence(sequence);
  report.set_step(step);
  report.set_time_unix_ns(1'700'000'000'000'000'000 + step);
  report.set_grad_norm(1.0 + 0.01 * static_cast<double>(step % 7));
  report.set_clip_coefficient(1);
  report.set_decision(v1::DECISION_APPLY);
  report.set_reason(v1::REASON_WITHIN_LIMITS);
  report.set_loss(2.5);
  return report;
}

inline v1::ReportBatch make_batch(std::uint64_t first_sequence, std::uint64_t last_sequence) {
  v1::ReportBatch batch;
  for (std::uint64_t i = first_sequence; i <= last_sequence; ++i)
    *batch.add_reports() = make_report(i, i);
  return batch;
}

// For a whole stream or query: a test that hangs is to end, a slow machine is not to fail it.
inline constexpr std::chrono::seconds kClientDeadline{240};

class IngestClient {
 public:
  explicit IngestClient(const std::string& address)
      : IngestClient(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {}
  // With a token, if it is not empty.
  explicit IngestClient(std::shared_ptr<grpc::Channel> channel, const std::string& token = "",
                        std::chrono::seconds deadline = kClientDeadline)
      : channel_(std::move(channel)), stub_(v1::IngestService::NewStub(channel_)) {
    if (!token.empty()) context_.AddMetadata("authorization", "Bearer " + token);
    context_.set_deadline(std::chrono::system_clock::now() + deadline);
    stream_ = stub_->Ingest(&context_);
  }

  bool send(const v1::IngestRequest& request) { return stream_->Write(request); }
  bool send(const v1::Hello& hello) {
    v1::IngestRequest request;
    *request.mutable_hello() = hello;
    return send(request);
  }
  bool send(const v1::ReportBatch& batch) {
    v1::IngestRequest request;
    *request.mutable_batch() = batch;
    return send(request);
  }
  bool send_goodbye(std::uint64_t last_step) {
    v1::IngestRequest request;
    request.mutable_goodbye()->set_last_step(last_step);
    return send(request);
  }

  // The next answer; false at the end of the stream.
  bool receive(v1::IngestResponse* response) { return stream_->Read(response); }

  // Reads answers until this many sequences of this stream are acknowledged or rejected in all.
  bool receive_until(std::size_t count) {
    v1::IngestResponse response;
    while (acknowledged.size() + rejected.size() < count) {
      if (!receive(&response)) return false;
      note(response);
    }
    return true;
  }
  bool receive_goodbye() {
    v1::IngestResponse response;
    while (receive(&response)) {
      note(response);
      if (response.goodbye()) return true;
    }
    return false;
  }
  void note(const v1::IngestResponse& response) {
    for (const auto& range : response.acknowledgement().stored()) {
      for (std::uint64_t s = range.first(); s <= range.last(); ++s) acknowledged.insert(s);
    }
    delayed = delayed || response.has_retry_delay();
    for (const auto& one : response.acknowledgement().rejected()) {
      rejected.push_back(one);
    }
  }

  grpc::Status finish() {
    stream_->WritesDone();
    v1::IngestResponse response;
    while (stream_->Read(&response)) note(response);
    return stream_->Finish();
  }
  void cancel() { context_.TryCancel(); }

  std::set<std::uint64_t> acknowledged;
  std::vector<v1::Rejection> rejected;
  bool delayed = false;  // an answer asked to wait

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::IngestService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::IngestRequest, v1::IngestResponse>> stream_;
};

class QueryClient {
 public:
  explicit QueryClient(const std::string& address)
      : stub_(v1::QueryService::NewStub(
            grpc::CreateChannel(address, grpc::InsecureChannelCredentials()))) {}

  grpc::Status get_run(const std::string& run, v1::GetRunResponse* response) {
    grpc::ClientContext context;
    prepare(context);
    v1::GetRunRequest request;
    request.set_run(run);
    return stub_->GetRun(&context, request, response);
  }
  grpc::Status list_runs(v1::ListRunsResponse* response) {
    grpc::ClientContext context;
    prepare(context);
    return stub_->ListRuns(&context, {}, response);
  }
  grpc::Status list_events(const v1::ListEventsRequest& request, v1::ListEventsResponse* response) {
    grpc::ClientContext context;
    prepare(context);
    return stub_->ListEvents(&context, request, response);
  }
  grpc::Status history(const v1::StreamHistoryRequest& request,
                       std::vector<v1::HistoryChunk>* chunks) {
    grpc::ClientContext context;
    prepare(context);
    const auto stream = stub_->StreamHistory(&context, request);
    v1::HistoryChunk chunk;
    while (stream->Read(&chunk)) chunks->push_back(chunk);
    return stream->Finish();
  }
  v1::QueryService::Stub& stub() { return *stub_; }

 private:
  static void prepare(grpc::ClientContext& context) {
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + kClientDeadline);
  }
  std::unique_ptr<v1::QueryService::Stub> stub_;
};

}  // namespace gradwarden::testing

#endif  // GRADWARDEN_TESTS_E2E_INGEST_CLIENT_H_
