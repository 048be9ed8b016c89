// The words for enum values of the wire, as they stand in metrics and logs: "rolling_mean".
#ifndef GRADWARDEN_DAEMON_INGEST_NAMES_H_
#define GRADWARDEN_DAEMON_INGEST_NAMES_H_

#include <string>

#include "gradwarden/v1/report.pb.h"

namespace gradwarden::ingest {

// An unknown reason of a newer client is "unspecified", so that the label's values stay bounded.
inline std::string reason_name(v1::Reason reason) {
  constexpr std::size_t kPrefix = sizeof("REASON_") - 1;
  std::string name = v1::Reason_Name(reason);
  if (name.size() <= kPrefix) return "unspecified";
  name.erase(0, kPrefix);
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return name;
}

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_NAMES_H_
