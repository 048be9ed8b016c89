// A step record as flat bytes for the ring, and from there as a message for the wire.
#ifndef GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_
#define GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_

#include <cstddef>
#include <cstdint>

#include "gradwarden/step_record.h"

namespace gradwarden::v1 {
class Report;
}

namespace gradwarden::reporter {

// Bytes that encode() will write.
std::size_t encoded_size(const StepRecord& record) noexcept;

// Copies the record. `out` has encoded_size() bytes. Batch ids beyond the wire's limits are cut.
void encode(const StepRecord& record, std::uint64_t time_unix_ns, unsigned char* out) noexcept;

// Fills a message from encoded bytes; all but its sequence. `shape` gives the names behind the
// indices.
void decode(const unsigned char* bytes, const RunShape& shape, v1::Report& report);

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_RECORD_CODEC_H_
