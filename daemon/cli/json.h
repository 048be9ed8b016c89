// Messages as JSON for tools: numbers stay numbers, enum values become short lower-case words
// ("skip"), times stay nanoseconds. NaN and infinities, which JSON lacks, become the strings "NaN",
// "Infinity" and "-Infinity".
#ifndef GRADWARDEN_DAEMON_CLI_JSON_H_
#define GRADWARDEN_DAEMON_CLI_JSON_H_

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>

namespace gradwarden::cli {

using Json = nlohmann::ordered_json;

// Fields with presence appear when they are set, repeated ones when they are not empty, all others
// always.
Json to_json(const google::protobuf::Message& message);

// As text, indented by so many blanks; -1: on one line. Bytes that are not UTF-8 are replaced.
std::string to_text(const Json& value, int indent = -1);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_JSON_H_
