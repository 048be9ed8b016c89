// Answers about runs from the store's rows. Pure apart from the reader; used on a reader's thread.
#ifndef GRADWARDEN_DAEMON_QUERY_RUN_SUMMARY_H_
#define GRADWARDEN_DAEMON_QUERY_RUN_SUMMARY_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::query {

// NOT_FOUND, saying how to list what there is.
absl::StatusOr<store::RunRow> find_run(store::StoreReader& reader, std::string_view name);

// All attempts in order, or the one that is named; NOT_FOUND if it is not there.
absl::StatusOr<std::vector<store::Attempt>> find_attempts(store::StoreReader& reader,
                                                          const store::RunRow& run,
                                                          std::string_view attempt);

absl::StatusOr<v1::ListRunsResponse> list_runs(store::StoreReader& reader);

// What a page shows of an attempt's checkpoints, and what a return to one must choose among: the
// incident may lie far behind the newest.
inline constexpr std::uint32_t kFewCheckpoints = 64;
inline constexpr std::uint32_t kAllCheckpoints = 10'000;
absl::StatusOr<v1::GetRunResponse> get_run(store::StoreReader& reader, std::string_view name,
                                           std::uint32_t checkpoints_per_attempt = kFewCheckpoints);

absl::StatusOr<v1::GetFlightResponse> get_flight(store::StoreReader& reader,
                                                 const v1::GetFlightRequest& request);
absl::StatusOr<v1::ListEventsResponse> list_events(store::StoreReader& reader,
                                                   const v1::ListEventsRequest& request);

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_RUN_SUMMARY_H_
