// Messages that wait for a worker, by run: each run has a line of its own, and the lines take
// turns, so that a run that sends much waits for itself and not others for it.
//
// Not thread-safe: its worker's lock guards it, and the lines with it.
#ifndef GRADWARDEN_DAEMON_INGEST_FAIR_QUEUE_H_
#define GRADWARDEN_DAEMON_INGEST_FAIR_QUEUE_H_

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "daemon/ingest/session.h"

namespace gradwarden::ingest {

// What a stream hands to its worker.
struct Inbound {
  enum class Kind : std::uint8_t {
    kRequest,  // `bytes` are a whole IngestRequest
    kBatch,    // `bytes` are the ReportBatch of one
    kClosed,   // the stream is gone
  };
  Kind kind = Kind::kRequest;
  std::shared_ptr<Session> session;
  std::string bytes;
  std::chrono::steady_clock::time_point arrived{};
};

// What a run has under way; shared by its streams.
struct RunLine {
  std::atomic<std::size_t> cost{0};  // see Admission
  // Guarded by the lock of the run's worker.
  std::deque<Inbound> waiting;
  bool listed = false;
};

class FairQueue {
 public:
  // What a run may have handled in one turn; at least one message.
  static constexpr std::size_t kTurnCost = 256 << 10;

  void push(std::shared_ptr<RunLine> line, Inbound inbound);
  bool empty() const { return lines_.empty(); }
  // One turn of each run that waits, in order, added to `out`.
  void take_round(std::vector<Inbound>& out);

 private:
  std::vector<std::shared_ptr<RunLine>> lines_;  // those with something waiting
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_FAIR_QUEUE_H_
