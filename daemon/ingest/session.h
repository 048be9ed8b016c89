// A stream as the workers see it: where answers go, and which attempt it belongs to.
//
// answer() and fail() may be called from any thread and never block. The members are the worker's
// own: only the worker that the stream was given to touches them.
#ifndef GRADWARDEN_DAEMON_INGEST_SESSION_H_
#define GRADWARDEN_DAEMON_INGEST_SESSION_H_

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
  // Ends the stream with an error, after what was answered.
  virtual void fail(const absl::Status& status) = 0;

  std::shared_ptr<Attempt> attempt;  // null before the Hello
  std::uint32_t rank = 0;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_SESSION_H_
