// A stream as the workers see it: where answers go, and which attempt it belongs to.
//
// answer() and fail() may be called from any thread and never block. The members are the worker's
// own: only the worker that the stream was given to touches them.
#ifndef GRADWARDEN_DAEMON_INGEST_SESSION_H_
#define GRADWARDEN_DAEMON_INGEST_SESSION_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "gradwarden/v1/ingest.pb.h"

namespace gradwarden::ingest {

struct Attempt;

class Session {
 public:
  virtual ~Session() = default;

  // The message of `bytes` bytes is done with; `response` may be empty. Every message that a
  // session handed to its worker gets exactly one call.
  virtual void answer(const v1::IngestResponse& response, std::size_t bytes) = 0;
  // Ends the stream with an error, after what was answered; with a delay if a later try may
  // succeed.
  virtual void fail(const absl::Status& status) = 0;

  std::shared_ptr<Attempt> attempt;  // null before the Hello
  std::uint32_t rank = 0;
};

// How long who finds no room, or a store that fails, is to wait.
inline constexpr std::chrono::milliseconds kNoRoomDelay{2000};

// Asks the client to send nothing more until the delay has passed.
inline void set_retry_delay(v1::IngestResponse& response, std::chrono::milliseconds delay) {
  google::protobuf::Duration* wait = response.mutable_retry_delay();
  wait->set_seconds(delay.count() / 1000);
  wait->set_nanos(static_cast<std::int32_t>(delay.count() % 1000 * 1'000'000));
}

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_SESSION_H_
