// Who may do what: asked by every RPC and every HTTP request before anything else happens.
//
// allow() and still_allowed() may be called from any thread and never wait long; load() and
// reload_if_changed() by one thread. Without a token file everybody may do everything, and the
// addresses the daemon listens on decide who that is.
#ifndef GRADWARDEN_DAEMON_SECURITY_ACCESS_H_
#define GRADWARDEN_DAEMON_SECURITY_ACCESS_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "daemon/metrics/daemon_metrics.h"
#include "daemon/security/tokens.h"
#include "daemon/security/watched_file.h"

namespace gradwarden::security {

// What a caller has shown; kept by streams, which outlive a change of the tokens.
struct Pass {
  std::optional<TokenHash> token;  // nothing where no tokens are asked for
};

class Access {
 public:
  explicit Access(metrics::DaemonMetrics& metrics) : metrics_(metrics) {}

  // Reads the file; on an error the tokens stay as they were. An empty path: no tokens.
  absl::Status load(const std::string& token_file);
  // Reads the file again if it is another one by now. True if the tokens are new.
  bool reload_if_changed();

  bool asks_for_tokens() const;
  // `authorization` is the header of that name, "" if there is none; `peer` is for the log.
  // UNAUTHENTICATED: no token or none of ours. PERMISSION_DENIED: one without this scope.
  absl::Status allow(std::string_view authorization, Scope scope, std::string_view peer,
                     Pass* pass = nullptr);
  // The same for an RPC.
  grpc::Status allow(const grpc::CallbackServerContext& call, Scope scope, Pass* pass = nullptr);
  // Whether what was shown then is still good.
  bool still_allowed(const Pass& pass, Scope scope) const;

 private:
  std::shared_ptr<const TokenTable> table() const;
  absl::Status deny(absl::Status status, metrics::Denial reason, std::string_view peer);

  metrics::DaemonMetrics& metrics_;
  WatchedFile file_;
  mutable std::mutex mutex_;
  std::shared_ptr<const TokenTable> table_;  // guarded by mutex_; null: no tokens
  std::atomic<std::int64_t> next_log_ms_{0};
};

}  // namespace gradwarden::security

#endif  // GRADWARDEN_DAEMON_SECURITY_ACCESS_H_
