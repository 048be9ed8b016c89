// How the gRPC server is set: sizes, times, and which of gRPC's own services it has.
#ifndef GRADWARDEN_DAEMON_APP_GRPC_OPTIONS_H_
#define GRADWARDEN_DAEMON_APP_GRPC_OPTIONS_H_

#include <grpcpp/grpcpp.h>

#include "daemon/app/config.h"

namespace gradwarden::app {

// `asks_for_tokens`: then reflection, which knows none, is left out.
void configure_grpc(const Config& config, bool asks_for_tokens, grpc::ServerBuilder& builder);

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_GRPC_OPTIONS_H_
