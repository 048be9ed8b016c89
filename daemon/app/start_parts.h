// Small functions that the files of Daemon share: daemon.cc, daemon_alerts.cc, daemon_http.cc.
#ifndef GRADWARDEN_DAEMON_APP_START_PARTS_H_
#define GRADWARDEN_DAEMON_APP_START_PARTS_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "daemon/app/daemon.h"

namespace gradwarden::app {

inline std::uint64_t unix_now_ns() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

inline StartError start_error(int code, const absl::Status& status) {
  return {code, std::string(status.message())};
}

inline http::Certificates certificates_of(const security::TlsMaterial& material) {
  return {material.certificate, material.key, material.client_ca};
}

}  // namespace gradwarden::app

#endif  // GRADWARDEN_DAEMON_APP_START_PARTS_H_
