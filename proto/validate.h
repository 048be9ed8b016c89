// The rules of the wire contract that types cannot express (proto/CONTRACT.md), in one place.
//
// Both sides may call them: the daemon refuses what they refuse, a client can check before it
// sends. Each function is pure and returns nothing when the message is acceptable, else one line
// that names the field, its value and what is allowed. The accepting path allocates nothing.
#ifndef GRADWARDEN_PROTO_VALIDATE_H_
#define GRADWARDEN_PROTO_VALIDATE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "gradwarden/v1/ingest.pb.h"
#include "gradwarden/v1/query.pb.h"
#include "gradwarden/v1/report.pb.h"

namespace gradwarden {

using Problem = std::optional<std::string>;

// What the Hello of a stream fixed for all its reports.
struct AttemptShape {
  std::uint32_t rank = 0;
  std::uint32_t world_size = 1;
  std::uint32_t groups = 0;
};

// A run name also stands in URLs and file names: printable UTF-8 without '/'.
Problem check_run_name(std::string_view name);

Problem check_hello(const v1::Hello& hello);
Problem check_batch_size(const v1::ReportBatch& batch);
Problem check_report(const v1::Report& report, const AttemptShape& shape);
Problem check_heartbeat(const v1::Heartbeat& heartbeat);
Problem check_goodbye(const v1::Goodbye& goodbye);
Problem check_get_flight(const v1::GetFlightRequest& request);
Problem check_stream_history(const v1::StreamHistoryRequest& request);

}  // namespace gradwarden

#endif  // GRADWARDEN_PROTO_VALIDATE_H_
