// Messages as JSON for tools: numbers stay numbers, enum values become short lower-case words
// ("skip"), times stay nanoseconds. NaN and infinities, which JSON lacks, become the strings "NaN",
// "Infinity" and "-Infinity".
#ifndef GRADWARDEN_DAEMON_CLI_JSON_H_
#define GRADWARDEN_DAEMON_CLI_JSON_H_

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>

namespace gradwarden::cli {

// Fields with presence appear when they are set, repeated ones when they are not empty, all others
// always.
nlohmann::ordered_json to_json(const google::protobuf::Message& message);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_JSON_H_
