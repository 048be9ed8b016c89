// How the command line writes numbers, times and tables for people.
#ifndef GRADWARDEN_DAEMON_CLI_TEXT_H_
#define GRADWARDEN_DAEMON_CLI_TEXT_H_

#include <google/protobuf/descriptor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace gradwarden::cli {

// DECISION_SKIP -> "skip": without the type's prefix, in lower case. A value that this program is
// too old to know counts as the unspecified one.
std::string enum_word(const google::protobuf::EnumDescriptor& type, int value);

std::string number(double value);               // four significant digits; all of an integer
std::string local_time(std::uint64_t unix_ns);  // 2026-11-22 18:03:11; "-" for 0
std::string ago(std::uint64_t unix_ns, std::uint64_t now_ns);  // "3 s ago"; "-" for 0
std::uint64_t now_unix_ns();

// "1 step", "2 steps"; `many` where an s is not enough.
std::string counted(std::uint64_t count, const std::string& one, const std::string& many = {});

// Columns padded to their widest cell, numbers to the right; the first row is the heading. Where
// `width` is too little, the columns named in `expendable` are left out, the first one first.
std::string table(std::vector<std::vector<std::string>> rows, std::size_t width,
                  const std::vector<std::string>& expendable = {});

// The text broken at blanks into lines of at most `width` columns, each after `indent` blanks and
// ended by newline. A longer word keeps a line of its own.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t width);

// Columns on a terminal of UTF-8 text, one per character.
std::size_t display_width(const std::string& text);
// Columns of the terminal, at least 40; 100 where there is none.
std::size_t terminal_width();
// True if the locale can print the characters that plots use.
bool utf8_output();

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_TEXT_H_
