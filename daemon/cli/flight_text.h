// A flight recording as text for people: which tensors changed at the event. Pure functions.
#ifndef GRADWARDEN_DAEMON_CLI_FLIGHT_TEXT_H_
#define GRADWARDEN_DAEMON_CLI_FLIGHT_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::cli {

// The recorded step that is `step`, as an index into flight.steps; nothing if it is not there.
std::optional<int> recorded_step(const v1::FlightRecording& flight, std::uint64_t step);

// A heading, then a table of tensors: norms at the oldest step, before `at` and at it (an index of
// flight.steps), those that hold something non-finite first, then those that grew most. At most
// `most` of them.
std::string flight_text(const v1::GetFlightResponse& response, const std::string& run, int at,
                        std::size_t most, std::size_t width);

}  // namespace gradwarden::cli

#endif  // GRADWARDEN_DAEMON_CLI_FLIGHT_TEXT_H_
