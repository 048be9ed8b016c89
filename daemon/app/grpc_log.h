// The log lines of gRPC and Protobuf, led into the daemon's log: a few of them in a while, since
// peers can cause as many as they like.
#ifndef GRADWARDEN_DAEMON_APP_GRPC_LOG_H_
#define GRADWARDEN_DAEMON_APP_GRPC_LOG_H_

namespace gradwarden::app {

// For the whole process; before gRPC is used.
void lead_grpc_log_into_ours();

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_GRPC_LOG_H_
