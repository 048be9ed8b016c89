// The --column flags of commands that read logs.
#ifndef GRADWARDEN_DAEMON_CLI_COLUMN_FLAGS_H_
#define GRADWARDEN_DAEMON_CLI_COLUMN_FLAGS_H_

#include <string>
#include <vector>

#include "daemon/replay/columns.h"

namespace gradwarden::cli {

// Reads "loss=train_loss" and the like. False, with a line on standard error, if one is not.
bool read_columns(const std::vector<std::string>& texts, replay::ColumnChoice& choice);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_COLUMN_FLAGS_H_
