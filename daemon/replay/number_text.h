// Numbers as logs write them. Pure.
#ifndef GRADWARDEN_DAEMON_REPLAY_NUMBER_TEXT_H_
#define GRADWARDEN_DAEMON_REPLAY_NUMBER_TEXT_H_

#include <cstdint>
#include <optional>
#include <string_view>

namespace gradwarden::replay {

std::string_view trimmed(std::string_view text);

// The whole text, blanks around it aside: "2.5", "6.0E-05", "nan", "Infinity", "-inf", "+1".
// A number too large for a double is infinite, as it is for who wrote it.
std::optional<double> parse_number(std::string_view text);

// A step: a whole number from 0 to 2^53, however it is written ("100.0").
std::optional<std::uint64_t> to_step(double value);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_NUMBER_TEXT_H_
