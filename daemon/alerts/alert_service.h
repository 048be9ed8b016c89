// The AlertService of gradwarden.v1: silences. Calls return at once.
#ifndef GRADWARDEN_DAEMON_ALERTS_ALERT_SERVICE_H_
#define GRADWARDEN_DAEMON_ALERTS_ALERT_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>

#include "daemon/alerts/alerter.h"
#include "daemon/security/access.h"
#include "gradwarden/v1/alert.grpc.pb.h"

namespace gradwarden::alerts {

class AlertService final : public v1::AlertService::CallbackService {
 public:
  AlertService(Alerter& alerter, security::Access& access, std::function<std::uint64_t()> now_ns)
      : alerter_(alerter), access_(access), now_ns_(std::move(now_ns)) {}

  grpc::ServerUnaryReactor* AddSilence(grpc::CallbackServerContext* call,
                                       const v1::AddSilenceRequest* request,
                                       v1::Silence* response) override;
  grpc::ServerUnaryReactor* RemoveSilence(grpc::CallbackServerContext* call,
                                          const v1::RemoveSilenceRequest* request,
                                          v1::RemoveSilenceResponse* response) override;
  grpc::ServerUnaryReactor* ListSilences(grpc::CallbackServerContext* call,
                                         const v1::ListSilencesRequest* request,
                                         v1::ListSilencesResponse* response) override;

 private:
  Alerter& alerter_;
  security::Access& access_;
  const std::function<std::uint64_t()> now_ns_;
};

}  // namespace gradwarden::alerts

#endif  // GRADWARDEN_DAEMON_ALERTS_ALERT_SERVICE_H_
