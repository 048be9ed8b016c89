// The outcomes of steps that ended on a device, for Python to fetch when it likes. A sink between
// the guard and the reporter: it keeps copies of the last ones and hands everything on.
//
// With a reporter, the reporter's thread drains the guard, else nobody by itself; fetch() drains,
// too, where no other thread is about it. drain() makes no CUDA call and never waits.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_FINISHED_STEPS_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_FINISHED_STEPS_H_

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "client/python/core/last_step.h"
#include "gradwarden/step_record.h"

namespace gradwarden::python {

class FinishedSteps final : public StepSink, public StepSource {
 public:
  // `next` may be null; else it outlives this.
  explicit FinishedSteps(StepSink* next) : next_(next) {}

  // The trainer's thread: what ended since the last call, in order. The oldest are dropped when
  // nobody has asked for long.
  std::vector<Outcome> fetch();

  void begin(const RunShape& shape) override;
  void submit(const StepRecord& record) noexcept override;
  bool attach(StepSource& source) override;
  void detach(StepSource& source) override;

  // The next sink's thread.
  void drain(StepSink& sink) noexcept override;
  bool flight(std::uint64_t last_step, FlightRecording& out) override;

 private:
  static constexpr std::size_t kMostKept = 1024;

  StepSink* const next_;
  std::mutex mutex_;  // of who drains
  StepSource* source_ = nullptr;
  bool next_attached_ = false;
  std::vector<std::string> tensors_;
  std::deque<Outcome> finished_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_FINISHED_STEPS_H_
