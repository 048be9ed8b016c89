#include "client/python/core/finished_steps.h"

#include <algorithm>
#include <utility>

namespace gradwarden::python {
namespace {

Outcome outcome_of(const StepRecord& record, const std::vector<std::string>& tensors) {
  Outcome told;
  told.decision = record.decision;
  told.reason = record.reason;
  told.grad_norm = record.grad_norm;
  told.clip_coefficient = record.clip_coefficient;
  told.learning_rate_factor = record.learning_rate_factor;
  told.shadow = record.shadow;
  told.step = record.step;
  told.loss = record.loss;
  told.learning_rate = record.learning_rate;
  told.threshold = record.threshold;
  told.rolling_mean = record.rolling_mean;
  told.clip_threshold = record.clip_threshold;
  told.max_abs = record.max_abs;
  told.nan_count = record.nan_count;
  told.inf_count = record.inf_count;
  for (const NonFiniteTensor& found : record.non_finite) {
    told.non_finite.push_back({tensors.at(found.tensor), found});
  }
  return told;
}

}  // namespace

std::vector<Outcome> FinishedSteps::fetch() {
  const std::lock_guard lock(mutex_);
  if (source_ != nullptr) source_->drain(*this);
  std::vector<Outcome> all(std::make_move_iterator(finished_.begin()),
                           std::make_move_iterator(finished_.end()));
  finished_.clear();
  return all;
}

void FinishedSteps::begin(const RunShape& shape) {
  tensors_ = shape.tensors;
  if (next_ != nullptr) next_->begin(shape);
}

// With mutex_ held, by whichever thread drains.
void FinishedSteps::submit(const StepRecord& record) noexcept {
  try {
    if (finished_.size() == kMostKept) finished_.pop_front();
    finished_.push_back(outcome_of(record, tensors_));
  } catch (...) {  // no memory for a copy that only tells people: the report goes on
  }
  if (next_ != nullptr) next_->submit(record);
}

// Without a next sink that has a thread, fetch() is what drains, so nobody else must.
bool FinishedSteps::attach(StepSource& source) {
  {
    const std::lock_guard lock(mutex_);
    source_ = &source;
  }
  next_attached_ = next_ != nullptr && next_->attach(*this);
  return true;
}

void FinishedSteps::detach(StepSource& source) {
  if (next_attached_) next_->detach(*this);
  next_attached_ = false;
  const std::lock_guard lock(mutex_);
  source.drain(*this);
  source_ = nullptr;
}

void FinishedSteps::drain(StepSink&) noexcept {
  const std::lock_guard lock(mutex_);
  if (source_ != nullptr) source_->drain(*this);
}

bool FinishedSteps::flight(std::uint64_t last_step, FlightRecording& out) {
  const std::lock_guard lock(mutex_);
  return source_ != nullptr && source_->flight(last_step, out);
}

}  // namespace gradwarden::python
