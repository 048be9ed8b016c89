#include "daemon/security/access.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

namespace gradwarden::security {
namespace {

constexpr std::string_view kBearer = "Bearer ";
// Refused callers come again and again: one line so often says it.
constexpr std::int64_t kLogEveryMs = 10'000;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

absl::Status Access::load(const std::string& token_file) {
  if (token_file.empty()) {
    file_ = WatchedFile();
    const std::lock_guard<std::mutex> lock(mutex_);
    table_.reset();
    return absl::OkStatus();
  }
  WatchedFile file = token_file == file_.path() ? file_ : WatchedFile(token_file);
  const absl::StatusOr<std::string> text = file.read();
  // Looked at again only when it has changed, whether it is good or not.
  if (file.path() == file_.path()) file_ = file;
  if (!text.ok()) return text.status();
  absl::StatusOr<TokenTable> table = TokenTable::parse(*text, token_file);
  if (!table.ok()) return table.status();
  file_ = std::move(file);
  if (file_.readable_by_all()) {
    spdlog::warn("{} can be read by every user of this host; chmod 600 it", token_file);
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  table_ = std::make_shared<const TokenTable>(*std::move(table));
  return absl::OkStatus();
}

bool Access::reload_if_changed() {
  if (!file_.changed()) return false;
  const absl::Status status = load(file_.path());
  if (status.ok()) {
    spdlog::info("{}: {} tokens, in force now", file_.path(), table()->size());
  } else {
    metrics::count(metrics_.reload_failures);
    spdlog::error("the tokens stay as they were: {}", std::string(status.message()));
  }
  return status.ok();
}

std::shared_ptr<const TokenTable> Access::table() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return table_;
}

bool Access::asks_for_tokens() const { return table() != nullptr; }

absl::Status Access::allow(std::string_view authorization, Scope scope, std::string_view peer,
                           Pass* pass) {
  const std::shared_ptr<const TokenTable> tokens = table();
  if (tokens == nullptr) return absl::OkStatus();
  if (authorization.substr(0, kBearer.size()) != kBearer) {
    return deny(absl::UnauthenticatedError(
                    "this daemon asks for a token and there is none; name a file that holds one "
                    "with --token-file, GRADWARDEN_TOKEN_FILE or the client's token_file"),
                metrics::Denial::kNoToken, peer);
  }
  const TokenTable::Entry* entry = tokens->find(authorization.substr(kBearer.size()));
  if (entry == nullptr) {
    return deny(absl::UnauthenticatedError(
                    "the token is none of this daemon's; compare the client's token file with the "
                    "daemon's security.token_file, it may have been renewed"),
                metrics::Denial::kUnknownToken, peer);
  }
  if (!entry->has(scope)) {
    const std::string name(scope_name(scope));
    return deny(absl::PermissionDeniedError("the token lacks the scope \"" + name +
                                            "\" that this needs; use another token, or add the "
                                            "scope to its line in the daemon's token file"),
                metrics::Denial::kScope, peer);
  }
  if (pass != nullptr) pass->token = entry->hash;
  return absl::OkStatus();
}

grpc::Status Access::allow(const grpc::CallbackServerContext& call, Scope scope, Pass* pass) {
  const auto& metadata = call.client_metadata();
  const auto header = metadata.find("authorization");
  const std::string_view value =
      header == metadata.end() ? std::string_view()
                               : std::string_view(header->second.data(), header->second.size());
  const absl::Status status = allow(value, scope, call.peer(), pass);
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

bool Access::still_allowed(const Pass& pass, Scope scope) const {
  const std::shared_ptr<const TokenTable> tokens = table();
  if (tokens == nullptr) return true;
  if (!pass.token) return false;
  const TokenTable::Entry* entry = tokens->find(*pass.token);
  return entry != nullptr && entry->has(scope);
}

absl::Status Access::deny(absl::Status status, metrics::Denial reason, std::string_view peer) {
  metrics_.denied(reason);
  const std::int64_t now = now_ms();
  std::int64_t next = next_log_ms_.load(std::memory_order_relaxed);
  if (now >= next && next_log_ms_.compare_exchange_strong(next, now + kLogEveryMs)) {
    spdlog::warn("refused {}: {} (said once in {} s; gradwarden_requests_denied_total counts all)",
                 peer, std::string(status.message()), kLogEveryMs / 1000);
  }
  return status;
}

}  // namespace gradwarden::security
