// Reads the history of a run piece by piece: every report in order of step, or at most so many
// points that keep the extremes. Between two pieces it holds no transaction, so that a slow reader
// costs the store nothing.
//
// One thread at a time; each call may be on another one.
#ifndef GRADWARDEN_DAEMON_QUERY_HISTORY_CURSOR_H_
#define GRADWARDEN_DAEMON_QUERY_HISTORY_CURSOR_H_

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/store/store.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::query {

class HistoryCursor {
 public:
  explicit HistoryCursor(const v1::StreamHistoryRequest& request);

  // Finds run and attempts. NOT_FOUND if they are not there.
  absl::Status open(store::StoreReader& reader);
  // The next piece; false at the end. A piece may be empty of reports only at the end.
  absl::StatusOr<bool> next(store::StoreReader& reader, v1::HistoryChunk& chunk);

 private:
  absl::StatusOr<bool> next_reports(store::StoreReader& reader, const store::Attempt& attempt,
                                    v1::HistoryChunk& chunk);
  absl::Status read_ahead(store::StoreReader& reader, const store::Attempt& attempt);
  absl::Status read_points(store::StoreReader& reader, const store::Attempt& attempt,
                           v1::HistoryChunk& chunk);
  absl::StatusOr<std::vector<store::Rollup>> rollups_of_reports(store::StoreReader& reader,
                                                                const store::Attempt& attempt,
                                                                std::uint64_t first,
                                                                std::uint64_t last);
  void begin_attempt();

  const v1::StreamHistoryRequest request_;
  std::uint64_t last_step_;
  std::vector<store::Attempt> attempts_;
  std::size_t at_ = 0;  // the attempt being read

  // Of the attempt being read. Segments may overlap in steps when batches came out of order:
  // reports wait here until no later segment can hold an earlier step.
  store::StoreReader::Position position_;
  std::multimap<std::uint64_t, v1::Report> waiting_;
  bool all_read_ = false;
};

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_HISTORY_CURSOR_H_
