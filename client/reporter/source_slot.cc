#include "client/reporter/source_slot.h"

#include <utility>

#include "client/reporter/flight_codec.h"
#include "gradwarden/error.h"

namespace gradwarden::reporter {

void refuse_second_source() {
  throw Error("reporter: another guard reports through it; give each guard a reporter of its own");
}

void SourceSlot::attach(StepSource& source) {
  const std::lock_guard lock(mutex_);
  if (source_ != nullptr && source_ != &source) refuse_second_source();
  source_ = &source;
}

void SourceSlot::detach(StepSource& source, StepSink& sink) {
  const std::lock_guard lock(mutex_);
  if (source_ != &source) return;
  source.drain(sink);  // so that its last events are counted
  const std::uint64_t submitted = submitted_.load(std::memory_order_relaxed);
  if (submitted > handled_) {
    parting_ = {};
    source.flight(StepSource::kNewestStep, parting_);
    parting_until_ = submitted;
  }
  source_ = nullptr;
}

// Records go through the sink's ring like any other, and are taken out of it right after.
bool SourceSlot::attached() const {
  const std::lock_guard lock(mutex_);
  return source_ != nullptr;
}

void SourceSlot::drain(StepSink& sink) {
  const std::lock_guard lock(mutex_);
  if (source_ != nullptr) source_->drain(sink);
}

bool SourceSlot::handle_event(std::uint64_t step, bool wanted, FlightRecording& out) {
  const std::lock_guard lock(mutex_);
  ++handled_;
  const bool of_the_parted = handled_ <= parting_until_;
  bool found = false;
  if (wanted && of_the_parted) {
    out = parting_;
    end_at(out, step);
    found = !out.steps.empty();
  } else if (wanted && source_ != nullptr) {
    out.tensors.clear();
    out.steps.clear();
    out.entries.clear();
    found = source_->flight(step, out);
  }
  if (of_the_parted && handled_ == parting_until_) parting_ = {};
  return found;
}

void SourceSlot::reset() {
  const std::lock_guard lock(mutex_);
  parting_ = {};
  parting_until_ = handled_ = 0;
  submitted_.store(0, std::memory_order_relaxed);
}

}  // namespace gradwarden::reporter
