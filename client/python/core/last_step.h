// The last step as Python is told of it: the guard's outcome, and of its record what a trainer
// asks for (thresholds, which tensor was not finite). A sink that keeps a copy and hands everything
// on to the next one, the reporter if there is one.
//
// The trainer's thread alone, but for attach() and detach(), which are the next sink's business.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_LAST_STEP_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_LAST_STEP_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gradwarden/guard.h"
#include "gradwarden/step_record.h"

namespace gradwarden::python {

// What one rank found in one tensor.
struct NonFinite {
  std::string tensor;
  NonFiniteTensor found;
};

struct Outcome : StepOutcome {
  std::uint64_t step = 0;
  std::optional<double> loss = {};
  std::optional<double> learning_rate = {};
  double threshold = 0;  // above which the step would have been skipped or reduced; 0: none applied
  double rolling_mean = 0;    // of the window before this step; 0 during warm-up
  double clip_threshold = 0;  // 0: none
  double max_abs = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::vector<NonFinite> non_finite = {};  // on rank 0 those of all ranks, elsewhere its own
};

class LastStep final : public StepSink {
 public:
  // `next` may be null; else it outlives this.
  explicit LastStep(StepSink* next) : next_(next) {}

  void begin(const RunShape& shape) override;
  void submit(const StepRecord& record) noexcept override;
  bool attach(StepSource& source) override { return next_ != nullptr && next_->attach(source); }
  void detach(StepSource& source) override {
    if (next_ != nullptr) next_->detach(source);
  }

  // The outcome of the step that was submitted last, together with what its record said.
  Outcome told(const StepOutcome& outcome, const StepInput& input) const;

 private:
  static constexpr std::size_t kMostListed = 64;

  StepSink* const next_;
  std::vector<std::string> tensors_;
  double threshold_ = 0;
  double rolling_mean_ = 0;
  double clip_threshold_ = 0;
  double max_abs_ = 0;
  std::uint64_t nan_count_ = 0;
  std::uint64_t inf_count_ = 0;
  std::array<NonFiniteTensor, kMostListed> listed_{};
  std::size_t listed_count_ = 0;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_LAST_STEP_H_
