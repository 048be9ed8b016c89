// What replaying logs came to, as one page that needs nothing else: no scripts, no fonts, no other
// files; plots are inline SVG. Pure.
#ifndef GRADWARDEN_DAEMON_CLI_REPLAY_HTML_H_
#define GRADWARDEN_DAEMON_CLI_REPLAY_HTML_H_

#include <string>
#include <vector>

#include "daemon/cli/replay_report.h"

namespace gradwarden::cli {

std::string replay_html(const std::vector<ReplayedFile>& files);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_REPLAY_HTML_H_
