// The framing of TensorBoard's event files: length, checksum of the length, bytes, checksum of the
// bytes; checksums are CRC-32C, rotated and shifted. Pure functions.
#ifndef GRADWARDEN_DAEMON_REPLAY_RECORD_FILE_H_
#define GRADWARDEN_DAEMON_REPLAY_RECORD_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace gradwarden::replay {

std::uint32_t masked_crc(std::string_view bytes);

struct RecordChunk {
  enum class State { kRecord, kDamaged, kEnd };
  State state = State::kEnd;
  std::string_view bytes;  // of a whole record
};

// Takes the next record off `bytes`. A damaged one is skipped where its length is sound; where the
// length itself is not, nothing after it can be found, and all of the rest is one damaged record.
RecordChunk next_record(std::string_view& bytes);

// A record framed; the inverse of the above.
std::string framed(std::string_view record);

}  // namespace gradwarden::replay

#endif  // GRADWARDEN_DAEMON_REPLAY_RECORD_FILE_H_
