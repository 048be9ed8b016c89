// One POST of JSON, with a deadline. Blocks; any thread.
#ifndef GRADWARDEN_DAEMON_ALERTS_HTTP_POST_H_
#define GRADWARDEN_DAEMON_ALERTS_HTTP_POST_H_

#include <chrono>
#include <string>

#include "absl/status/status.h"

namespace gradwarden::alerts {

// OK for an answer of 2xx. INVALID_ARGUMENT for one of 4xx but 408 and 429: to send the same again
// cannot help. UNAVAILABLE for everything else.
absl::Status post_json(const std::string& url, const std::string& body,
                       std::chrono::milliseconds deadline);

}  // namespace gradwarden::alerts

#endif  // GRADWARDEN_DAEMON_ALERTS_HTTP_POST_H_
