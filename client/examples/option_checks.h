// What the example trainers check of their flags beside CLI11's own ranges, and how they word a
// refusal.
#ifndef GRADWARDEN_CLIENT_EXAMPLES_OPTION_CHECKS_H_
#define GRADWARDEN_CLIENT_EXAMPLES_OPTION_CHECKS_H_

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdint>
#include <string>

namespace option_checks {

inline constexpr std::uint64_t kMostSteps = 100000000;

// CLI11's ranges let NaN pass.
inline std::string check_finite(const std::string& text) {
  double value = 0;
  const bool good = CLI::detail::lexical_cast(text, value) && std::isfinite(value);
  return good ? "" : "is \"" + text + "\"; allowed: a finite number";
}

inline std::string check_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  const int number = digits ? std::stoi(port) : 0;
  const bool good = colon != 0 && number >= 1 && number <= 65535;
  return good ? "" : "is \"" + text + "\"; allowed: host:port";
}

inline const CLI::Validator kFinite(check_finite, "");
inline const CLI::Validator kAddress(check_address, "");

// One line for people.
inline std::string message_of(const CLI::ParseError& error) {
  std::string message = std::string(error.what()) + " (see --help)";
  // CLI11 puts "--daemon: " before what a check of ours says: "is ...".
  const std::size_t own = message.find(": is \"");
  if (own != std::string::npos) message.erase(own, 1);
  return message;
}

}  // namespace option_checks

#endif  // GRADWARDEN_CLIENT_EXAMPLES_OPTION_CHECKS_H_
