// How the command line writes numbers, times, tables and events for people.
#ifndef GRADWARDEN_DAEMON_CLI_TEXT_H_
#define GRADWARDEN_DAEMON_CLI_TEXT_H_

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// DECISION_SKIP -> "skip": without the type's prefix, in lower case.
std::string enum_word(const google::protobuf::EnumValueDescriptor& value);

std::string number(double value);               // four significant digits
std::string local_time(std::uint64_t unix_ns);  // 2026-11-22 18:03:11; "-" for 0
std::string ago(std::uint64_t unix_ns);         // "3 s ago"; "-" for 0

// One line: severity, run, steps, what, where, what to do.
std::string event_line(const v1::Event& event, bool with_run);

// Columns padded to their widest cell; the first row is the heading.
std::string table(const std::vector<std::vector<std::string>>& rows);

// Columns of the terminal, or 100 where there is none.
int terminal_width();
// True if the locale can print the characters that plots use.
bool utf8_output();

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_TEXT_H_
