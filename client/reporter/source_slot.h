// The guard that a reporter serves: asked for its records every few milliseconds, and for its
// flight recorder when the record of an event is handled.
//
// Thread-safe. The trainer's step only calls note_event(), which is one atomic addition; the other
// calls share a lock that no step ever takes.
#ifndef GRADWARDEN_CLIENT_REPORTER_SOURCE_SLOT_H_
#define GRADWARDEN_CLIENT_REPORTER_SOURCE_SLOT_H_

#include <atomic>
#include <cstdint>
#include <mutex>

#include "gradwarden/step_record.h"

namespace gradwarden::reporter {

// A reporter serves one guard.
[[noreturn]] void refuse_second_source();

class SourceSlot {
 public:
  // Throws Error if another source is there.
  void attach(StepSource& source);
  bool attached() const;
  // Takes what the source still has for events that were submitted and not handled yet, and lets go
  // of it. Nothing if it is not the one attached.
  void detach(StepSource& source, StepSink& sink);
  void drain(StepSink& sink);

  // The record of an event is in the ring.
  void note_event() noexcept { submitted_.fetch_add(1, std::memory_order_relaxed); }
  // Called once for each event, in the order of their records. If it is `wanted`: the steps up to
  // the event's, from the source that it came from. False: there are none.
  bool handle_event(std::uint64_t step, bool wanted, FlightRecording& out);

  // Before a new attempt, when every event has been handled.
  void reset();

 private:
  mutable std::mutex mutex_;
  StepSource* source_ = nullptr;     // guarded by mutex_
  FlightRecording parting_;          // guarded by mutex_: of a source that is gone
  std::uint64_t parting_until_ = 0;  // guarded by mutex_: the last event that it is for
  std::uint64_t handled_ = 0;        // guarded by mutex_
  std::atomic<std::uint64_t> submitted_{0};
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_SOURCE_SLOT_H_
