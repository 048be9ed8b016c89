// Events as text for people.
#ifndef GRADWARDEN_DAEMON_CLI_EVENT_TEXT_H_
#define GRADWARDEN_DAEMON_CLI_EVENT_TEXT_H_

#include <cstddef>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// One line, without newline, for a stream of events: when, how severe, run, steps, what and what
// to do; for one that ended only how long it was and its peak, since its beginning was a line too.
std::string event_line(const v1::Event& event);

// A heading and indented paragraphs within `width` columns. `attempt` is named where it says more
// than the place already does.
// "learning rate, 70 % sure"
std::string cause_text(const std::string& cause, double confidence);

std::string event_block(const v1::Event& event, bool with_attempt, std::size_t width);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_EVENT_TEXT_H_
