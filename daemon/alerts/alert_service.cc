#include "daemon/alerts/alert_service.h"

#include <string>

namespace gradwarden::alerts {
namespace {

constexpr std::uint64_t kSecondNs = 1'000'000'000;
constexpr std::uint64_t kMostSeconds = 366ull * 24 * 3600;
constexpr std::size_t kMostText = 256;
constexpr std::size_t kMostSilences = 1000;

void describe(const Silence& silence, v1::Silence& out) {
  out.set_id(silence.id);
  out.set_run(silence.run);
  out.set_kind(silence.kind);
  out.set_until_unix_ns(silence.until_ns);
  out.set_comment(silence.comment);
}

grpc::Status invalid(const std::string& what) { return {grpc::StatusCode::INVALID_ARGUMENT, what}; }

}  // namespace

grpc::ServerUnaryReactor* AlertService::AddSilence(grpc::CallbackServerContext* call,
                                                   const v1::AddSilenceRequest* request,
                                                   v1::Silence* response) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  grpc::Status status = access_.allow(*call, security::Scope::kAdmin);
  const bool too_long = request->run().size() > kMostText || request->kind().size() > kMostText ||
                        request->comment().size() > kMostText;
  if (status.ok() && request->run().empty()) status = invalid("run: empty; allowed: a pattern");
  if (status.ok() && too_long) status = invalid("run, kind, comment: at most 256 bytes each");
  if (status.ok() && (request->seconds() == 0 || request->seconds() > kMostSeconds)) {
    status = invalid("seconds: " + std::to_string(request->seconds()) + "; allowed: 1 to " +
                     std::to_string(kMostSeconds));
  }
  if (status.ok() && alerter_.silences().size() >= kMostSilences) {
    status = {grpc::StatusCode::RESOURCE_EXHAUSTED, "silences: there are 1000 already"};
  }
  if (status.ok()) {
    Silence silence{0, request->run(), request->kind(), now_ns_() + request->seconds() * kSecondNs,
                    request->comment()};
    silence.id = alerter_.silence(silence);
    describe(silence, *response);
  }
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* AlertService::RemoveSilence(grpc::CallbackServerContext* call,
                                                      const v1::RemoveSilenceRequest* request,
                                                      v1::RemoveSilenceResponse*) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  grpc::Status status = access_.allow(*call, security::Scope::kAdmin);
  if (status.ok() && !alerter_.unsilence(request->id())) {
    status = {grpc::StatusCode::NOT_FOUND, "no silence " + std::to_string(request->id())};
  }
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* AlertService::ListSilences(grpc::CallbackServerContext* call,
                                                     const v1::ListSilencesRequest*,
                                                     v1::ListSilencesResponse* response) {
  grpc::ServerUnaryReactor* const reactor = call->DefaultReactor();
  const grpc::Status status = access_.allow(*call, security::Scope::kRead);
  if (status.ok()) {
    for (const Silence& silence : alerter_.silences()) {
      describe(silence, *response->add_silences());
    }
  }
  reactor->Finish(status);
  return reactor;
}

}  // namespace gradwarden::alerts
