// What replaying a log came to, as JSON for tools and as text for people. Pure.
#ifndef GRADWARDEN_DAEMON_CLI_REPLAY_REPORT_H_
#define GRADWARDEN_DAEMON_CLI_REPLAY_REPORT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "daemon/cli/json.h"
#include "daemon/replay/replay.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

struct ReplayedFile {
  std::string path;
  replay::LogContent content;
  replay::ReplayResult result;
};

// In the order of their steps; the attempt is "1", "2", ...
std::vector<v1::Event> events_of(const ReplayedFile& file);

// One object: "files" (with counts, counterfactuals and suggestions) and all "events", which name
// their file where there are several.
Json replay_json(const std::vector<ReplayedFile>& files);

// What was read, and what rules would have done.
std::string replay_summary(const ReplayedFile& file, std::size_t width);

// Summary and events within `width` columns.
std::string replay_text(const ReplayedFile& file, std::size_t width);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_REPLAY_REPORT_H_
