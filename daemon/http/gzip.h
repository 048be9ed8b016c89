// Bodies compressed as clients ask for it (RFC 1952). Pure.
#ifndef GRADWARDEN_DAEMON_HTTP_GZIP_H_
#define GRADWARDEN_DAEMON_HTTP_GZIP_H_

#include <optional>
#include <string>
#include <string_view>

namespace gradwarden::http {

// Whether an Accept-Encoding header allows gzip: it, or *, is named and not with a weight of 0.
bool accepts_gzip(std::string_view accept_encoding);

// Fast rather than small. Nothing if zlib failed.
std::optional<std::string> gzip(std::string_view body);

}  // namespace gradwarden::http

#endif  // GRADWARDEN_DAEMON_HTTP_GZIP_H_
