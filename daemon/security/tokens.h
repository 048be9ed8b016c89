// Bearer tokens and what each may do, read from a file.
//
// The file has one token per line, "SCOPE[,SCOPE...]:TOKEN"; empty lines and lines that begin with
// '#' say nothing. Only a hash of each token stays in memory, and no message or log line ever holds
// a token. A table never changes once it is read: any thread may use it.
#ifndef GRADWARDEN_DAEMON_SECURITY_TOKENS_H_
#define GRADWARDEN_DAEMON_SECURITY_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace gradwarden::security {

enum class Scope : std::uint8_t {
  kWrite = 1,  // send reports
  kRead = 2,   // ask for runs, history, events and metrics
  kAdmin = 4,  // everything
};

std::string_view scope_name(Scope scope);

// A secret shorter than this can be guessed.
inline constexpr std::size_t kLeastTokenBytes = 16;
inline constexpr std::size_t kMostTokenBytes = 512;

using TokenHash = std::array<unsigned char, 32>;  // SHA-256

class TokenTable {
 public:
  // What a token stands for.
  struct Entry {
    TokenHash hash{};
    std::uint8_t scopes = 0;

    bool has(Scope scope) const;
  };

  // INVALID_ARGUMENT names the file and the line, never what stands there.
  static absl::StatusOr<TokenTable> parse(std::string_view text, const std::string& name);

  // The entry of a token. The time it takes does not depend on how much of the token is right.
  const Entry* find(std::string_view token) const;
  // The entry with this hash: for who has shown the token already.
  const Entry* find(const TokenHash& hash) const;
  std::size_t size() const { return entries_.size(); }

 private:
  std::vector<Entry> entries_;
};

}  // namespace gradwarden::security

#endif  // GRADWARDEN_DAEMON_SECURITY_TOKENS_H_
