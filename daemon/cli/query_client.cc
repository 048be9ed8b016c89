#include "daemon/cli/query_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>

namespace gradwarden::cli {
namespace {

constexpr std::chrono::seconds kDeadline{10};

std::unique_ptr<grpc::ClientContext> context_with_deadline() {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + kDeadline);
  return context;
}

}  // namespace

QueryClient::QueryClient(std::string address)
    : address_(std::move(address)),
      stub_(v1::QueryService::NewStub(
          grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()))) {}

grpc::Status QueryClient::list_runs(v1::ListRunsResponse* response) {
  return stub_->ListRuns(context_with_deadline().get(), {}, response);
}

grpc::Status QueryClient::get_run(const std::string& run, v1::GetRunResponse* response) {
  v1::GetRunRequest request;
  request.set_run(run);
  return stub_->GetRun(context_with_deadline().get(), request, response);
}

grpc::Status QueryClient::list_events(const v1::ListEventsRequest& request,
                                      v1::ListEventsResponse* response) {
  return stub_->ListEvents(context_with_deadline().get(), request, response);
}

grpc::Status QueryClient::stream_history(const v1::StreamHistoryRequest& request,
                                         const std::function<bool(const v1::HistoryChunk&)>& take) {
  grpc::ClientContext context;
  const auto reader = stub_->StreamHistory(&context, request);
  v1::HistoryChunk chunk;
  bool wanted = true;
  while (wanted && reader->Read(&chunk)) wanted = take(chunk);
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? status : grpc::Status::OK;
}

grpc::Status QueryClient::watch_events(const v1::WatchEventsRequest& request,
                                       const std::function<bool(const v1::Event&)>& take) {
  grpc::ClientContext context;
  const auto reader = stub_->WatchEvents(&context, request);
  v1::Event event;
  bool wanted = true;
  while (wanted && reader->Read(&event)) wanted = take(event);
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? status : grpc::Status::OK;
}

int QueryClient::explain(const grpc::Status& status) const {
  if (status.ok()) return kOk;
  switch (status.error_code()) {
    case grpc::StatusCode::NOT_FOUND:
      std::fprintf(stderr, "gradwarden: %s\n", status.error_message().c_str());
      return kNotFound;
    case grpc::StatusCode::INVALID_ARGUMENT:
      std::fprintf(stderr, "gradwarden: %s\n", status.error_message().c_str());
      return kUsage;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      std::fprintf(stderr,
                   "gradwarden: no answer from %s (%s); start gradwardend there or name another "
                   "address with --daemon\n",
                   address_.c_str(), status.error_message().c_str());
      return kUnreachable;
    default:
      std::fprintf(stderr, "gradwarden: %s refused: %s\n", address_.c_str(),
                   status.error_message().c_str());
      return kUnreachable;
  }
}

}  // namespace gradwarden::cli
