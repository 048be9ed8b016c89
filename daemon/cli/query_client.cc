#include "daemon/cli/query_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <string_view>
#include <utility>

namespace gradwarden::cli {
namespace {

constexpr std::chrono::seconds kDeadline{10};

constexpr int kMostBytes = 256 << 20;

// gRPC says "failed to connect to all addresses; last error: UNKNOWN: ipv4:...: Connection
// refused": the end of it is what a person needs.
std::string core_of(const std::string& message) {
  constexpr std::string_view kLead = "failed to connect to all addresses";
  if (message.compare(0, kLead.size(), kLead) != 0) return message;
  const std::size_t colon = message.rfind(": ");
  return colon == std::string::npos ? message : message.substr(colon + 2);
}

}  // namespace

QueryClient::QueryClient(std::string address, ChannelSecurity security)
    : address_(std::move(address)), security_(std::move(security)) {
  std::optional<std::string> problem = check_channel_security(security_, address_);
  if (!problem) problem = read_secrets(security_, secrets_);
  if (problem) unusable_ = {grpc::StatusCode::INVALID_ARGUMENT, *problem};
  // A run of many attempts repeats its groups' names for each of them.
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMostBytes);
  stub_ = v1::QueryService::NewStub(open_channel(address_, security_, secrets_, arguments));
}

std::unique_ptr<grpc::ClientContext> QueryClient::call_with_deadline() const {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(std::chrono::system_clock::now() + kDeadline);
  add_authorization(*context, secrets_);
  return context;
}

grpc::Status QueryClient::list_runs(v1::ListRunsResponse* response) {
  if (!unusable_.ok()) return unusable_;
  return stub_->ListRuns(call_with_deadline().get(), {}, response);
}

grpc::Status QueryClient::get_run(const std::string& run, v1::GetRunResponse* response) {
  if (!unusable_.ok()) return unusable_;
  v1::GetRunRequest request;
  request.set_run(run);
  return stub_->GetRun(call_with_deadline().get(), request, response);
}

grpc::Status QueryClient::list_events(const v1::ListEventsRequest& request,
                                      v1::ListEventsResponse* response) {
  if (!unusable_.ok()) return unusable_;
  return stub_->ListEvents(call_with_deadline().get(), request, response);
}

grpc::Status QueryClient::get_flight(const v1::GetFlightRequest& request,
                                     v1::GetFlightResponse* response) {
  if (!unusable_.ok()) return unusable_;
  return stub_->GetFlight(call_with_deadline().get(), request, response);
}

grpc::Status QueryClient::all_events(const std::string& run, const std::string& attempt,
                                     std::vector<v1::Event>* events) {
  v1::ListEventsRequest request;
  request.set_run(run);
  request.set_attempt(attempt);
  while (true) {
    v1::ListEventsResponse response;
    grpc::Status status = list_events(request, &response);
    if (!status.ok() || response.events().empty()) return status;
    const std::uint64_t last = response.events(response.events_size() - 1).id();
    if (last <= request.after_id()) return status;  // a daemon that does not page
    request.set_after_id(last);
    for (v1::Event& event : *response.mutable_events()) events->push_back(std::move(event));
  }
}

grpc::Status QueryClient::stream_history(const v1::StreamHistoryRequest& request,
                                         const std::function<bool(const v1::HistoryChunk&)>& take) {
  if (!unusable_.ok()) return unusable_;
  grpc::ClientContext context;
  add_authorization(context, secrets_);
  const auto reader = stub_->StreamHistory(&context, request);
  v1::HistoryChunk chunk;
  bool wanted = true;
  while (wanted && reader->Read(&chunk)) wanted = take(chunk);
  if (!wanted) context.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? status : grpc::Status::OK;
}

grpc::Status QueryClient::watch_events(grpc::ClientContext& call,
                                       const v1::WatchEventsRequest& request,
                                       const std::function<bool(const v1::Event&)>& take) {
  if (!unusable_.ok()) return unusable_;
  add_authorization(call, secrets_);
  const auto reader = stub_->WatchEvents(&call, request);
  v1::Event event;
  bool wanted = true;
  while (wanted && reader->Read(&event)) wanted = take(event);
  if (!wanted) call.TryCancel();
  const grpc::Status status = reader->Finish();
  return wanted ? status : grpc::Status::OK;
}

int QueryClient::explain(const grpc::Status& status) const {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
      return kOk;
    case grpc::StatusCode::NOT_FOUND:
      std::fprintf(stderr, "gradwarden: %s\n", status.error_message().c_str());
      return kNotFound;
    case grpc::StatusCode::INVALID_ARGUMENT:
      std::fprintf(stderr, "gradwarden: %s\n", status.error_message().c_str());
      return kUsage;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      std::fprintf(stderr, "gradwarden: %s refused: %s\n", address_.c_str(),
                   status.error_message().c_str());
      return kRefused;
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      if (const std::string hint = tls_hint(security_, status.error_message()); !hint.empty()) {
        std::fprintf(stderr, "gradwarden: no answer from %s: %s\n", address_.c_str(), hint.c_str());
        return kUnreachable;
      }
      std::fprintf(stderr,
                   "gradwarden: no answer from %s (%s); start gradwardend there, or name another "
                   "address with --daemon or GRADWARDEN_DAEMON\n",
                   address_.c_str(), core_of(status.error_message()).c_str());
      return kUnreachable;
    default:
      std::fprintf(stderr, "gradwarden: %s refused: %s\n", address_.c_str(),
                   status.error_message().c_str());
      return kUnreachable;
  }
}

int QueryClient::explain_lost(const grpc::Status& status) const {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE) return explain(status);
  std::fprintf(stderr,
               "gradwarden: the daemon at %s went away (%s); run this again once it is back\n",
               address_.c_str(), core_of(status.error_message()).c_str());
  return kUnreachable;
}

}  // namespace gradwarden::cli
