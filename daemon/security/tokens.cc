#include "daemon/security/tokens.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

namespace gradwarden::security {
namespace {

TokenHash hash_of(std::string_view token) {
  TokenHash hash{};
  gnutls_hash_fast(GNUTLS_DIG_SHA256, token.data(), token.size(), hash.data());
  return hash;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::optional<Scope> scope_of(std::string_view name) {
  for (const Scope scope : {Scope::kWrite, Scope::kRead, Scope::kAdmin}) {
    if (name == scope_name(scope)) return scope;
  }
  return std::nullopt;
}

// "write,read"; nothing if a word is no scope.
std::optional<std::uint8_t> scopes_of(std::string_view words) {
  std::uint8_t scopes = 0;
  while (true) {
    const std::size_t comma = words.find(',');
    const std::optional<Scope> scope = scope_of(trimmed(words.substr(0, comma)));
    if (!scope) return std::nullopt;
    scopes |= static_cast<std::uint8_t>(*scope);
    if (comma == std::string_view::npos) return scopes;
    words.remove_prefix(comma + 1);
  }
}

// What a header can carry: printable, without blanks.
bool is_printable(std::string_view token) {
  for (const char c : token) {
    if (c <= ' ' || c > '~') return false;
  }
  return true;
}

}  // namespace

std::string_view scope_name(Scope scope) {
  switch (scope) {
    case Scope::kWrite:
      return "write";
    case Scope::kRead:
      return "read";
    case Scope::kAdmin:
      return "admin";
  }
  return "";
}

bool TokenTable::Entry::has(Scope scope) const {
  constexpr auto kEverything = static_cast<std::uint8_t>(Scope::kAdmin);
  return (scopes & (static_cast<std::uint8_t>(scope) | kEverything)) != 0;
}

absl::StatusOr<TokenTable> TokenTable::parse(std::string_view text, const std::string& name) {
  TokenTable table;
  std::size_t number = 0;
  while (!text.empty()) {
    ++number;
    const std::size_t end = text.find('\n');
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    const auto bad = [&](const std::string& what) {
      std::string message = name;
      message.append(":").append(std::to_string(number)).append(": ").append(what);
      return absl::InvalidArgumentError(message);
    };
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) return bad("no colon, allowed is SCOPE[,SCOPE...]:TOKEN");
    const std::optional<std::uint8_t> scopes = scopes_of(line.substr(0, colon));
    if (!scopes) return bad("an unknown scope, allowed are write, read and admin, by commas");
    const std::string_view token = trimmed(line.substr(colon + 1));
    if (token.size() < kLeastTokenBytes || token.size() > kMostTokenBytes || !is_printable(token)) {
      return bad("a token of " + std::to_string(token.size()) + " bytes, allowed are " +
                 std::to_string(kLeastTokenBytes) + " to " + std::to_string(kMostTokenBytes) +
                 " printable characters without blanks; openssl rand -hex 32 makes one");
    }
    const TokenHash hash = hash_of(token);
    if (table.find(hash) != nullptr) return bad("the token of an earlier line again");
    table.entries_.push_back({hash, *scopes});
  }
  if (table.entries_.empty()) {
    return absl::InvalidArgumentError(
        name + ": no token in it, so nobody could come in; write lines SCOPE[,SCOPE...]:TOKEN");
  }
  return table;
}

const TokenTable::Entry* TokenTable::find(std::string_view token) const {
  return find(hash_of(token));
}

const TokenTable::Entry* TokenTable::find(const TokenHash& hash) const {
  const Entry* found = nullptr;
  // All are looked at, and each wholly.
  for (const Entry& entry : entries_) {
    if (gnutls_memcmp(entry.hash.data(), hash.data(), hash.size()) == 0) found = &entry;
  }
  return found;
}

}  // namespace gradwarden::security
