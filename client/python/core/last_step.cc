#include "client/python/core/last_step.h"

#include <algorithm>

namespace gradwarden::python {

void LastStep::begin(const RunShape& shape) {
  tensors_ = shape.tensors;
  if (next_ != nullptr) next_->begin(shape);
}

void LastStep::submit(const StepRecord& record) noexcept {
  threshold_ = record.threshold;
  rolling_mean_ = record.rolling_mean;
  clip_threshold_ = record.clip_threshold;
  max_abs_ = record.max_abs;
  nan_count_ = record.nan_count;
  inf_count_ = record.inf_count;
  listed_count_ = std::min(record.non_finite.size(), kMostListed);
  std::copy_n(record.non_finite.begin(), listed_count_, listed_.begin());
  if (next_ != nullptr) next_->submit(record);
}

Outcome LastStep::told(const StepOutcome& outcome, const StepInput& input) const {
  Outcome told{outcome};
  told.step = input.step;
  told.loss = input.loss;
  told.learning_rate = input.learning_rate;
  told.threshold = threshold_;
  told.rolling_mean = rolling_mean_;
  told.clip_threshold = clip_threshold_;
  told.max_abs = max_abs_;
  told.nan_count = nan_count_;
  told.inf_count = inf_count_;
  for (std::size_t i = 0; i < listed_count_; ++i) {
    told.non_finite.push_back({tensors_.at(listed_[i].tensor), listed_[i]});
  }
  return told;
}

}  // namespace gradwarden::python
