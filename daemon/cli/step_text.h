// One step as text for people: what the guard saw, decided and why. Pure functions.
#ifndef GRADWARDEN_DAEMON_CLI_STEP_TEXT_H_
#define GRADWARDEN_DAEMON_CLI_STEP_TEXT_H_

#include <cstddef>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// A heading and indented lines within `width` columns. `attempt` is the step's: it knows the
// checkpoints that came before.
std::string step_text(const v1::Report& report, const v1::AttemptSummary& attempt,
                      std::size_t width);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_STEP_TEXT_H_
