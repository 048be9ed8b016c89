// What a flight recorder held, as a message of bounded size.
#ifndef GRADWARDEN_CLIENT_REPORTER_FLIGHT_CODEC_H_
#define GRADWARDEN_CLIENT_REPORTER_FLIGHT_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "gradwarden/step_record.h"

namespace gradwarden::v1 {
class FlightRecording;
}

namespace gradwarden::reporter {

// Drops the steps after `last_step`, for a recording that was taken later than its event.
void end_at(FlightRecording& recording, std::uint64_t last_step);

// Fills `out` with at most `max_bytes`: of the newest steps as many as fit, and of the tensors all,
// or where not even a few steps of all would fit, those that changed most in the last step. What is
// left out is counted. `shape` gives the names behind the indices.
void encode_flight(const FlightRecording& recording, const RunShape& shape, std::size_t max_bytes,
                   v1::FlightRecording& out);

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_FLIGHT_CODEC_H_
