// A step record as flat bytes for the ring, and from there as a message for the wire.
#ifndef GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_
#define GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "gradwarden/step_record.h"

namespace gradwarden::v1 {
class Report;
}

namespace gradwarden::reporter {

// Bytes that encode() will write.
std::size_t encoded_size(const StepRecord& record) noexcept;

// Copies the record. `out` has encoded_size() bytes. What is beyond the wire's limits is left out;
// batch ids and names are cut.
void encode(const StepRecord& record, std::uint64_t time_unix_ns, unsigned char* out) noexcept;

// Fills a message from encoded bytes; all but its sequence. `shape` gives the names behind the
// indices.
void decode(const unsigned char* bytes, const RunShape& shape, v1::Report& report);

// The step is an event, for which the flight recorder's steps are wanted: it was (or in shadow mode
// would have been) skipped or reduced, something was not finite, or replicas declared identical
// differ. The overflow that a dynamic loss scale expects is none.
bool is_event(const StepRecord& record) noexcept;
// The same of an encoded record.
bool is_event(const unsigned char* bytes) noexcept;

// At most `limit` bytes of valid UTF-8, cut at a character's start.
std::string_view cut(std::string_view text, std::size_t limit) noexcept;

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_
