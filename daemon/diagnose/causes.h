// The causes that a diagnosis may name, as they stand in events and alerts.
#ifndef GRADWARDEN_DAEMON_DIAGNOSE_CAUSES_H_
#define GRADWARDEN_DAEMON_DIAGNOSE_CAUSES_H_

#include <string_view>

namespace gradwarden::diagnose {

inline constexpr std::string_view kData = "data";
inline constexpr std::string_view kLearningRate = "learning_rate";
inline constexpr std::string_view kNumerics = "numerics";
inline constexpr std::string_view kArchitecture = "architecture";
inline constexpr std::string_view kHardware = "hardware";
inline constexpr std::string_view kConfiguration = "configuration";
// The evidence is thin; the action says what to report to learn more.
inline constexpr std::string_view kUnknown = "unknown";

}  // namespace gradwarden::diagnose

#endif  // GRADWARDEN_DAEMON_DIAGNOSE_CAUSES_H_
