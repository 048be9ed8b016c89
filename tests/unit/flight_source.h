// A stand-in for a guard with a flight recorder: holds the last 64 steps, one or more tensors.
#ifndef GRADWARDEN_TESTS_UNIT_FLIGHT_SOURCE_H_
#define GRADWARDEN_TESTS_UNIT_FLIGHT_SOURCE_H_

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "gradwarden/step_record.h"

namespace gradwarden::test {

// The norm of tensor t in step s is s + t, so that a test can tell them apart.
class FlightSource : public StepSource {
 public:
  explicit FlightSource(std::uint32_t tensors = 1) : tensors_(tensors) {}

  void ended(std::uint64_t step) {
    const std::lock_guard lock(mutex_);
    last_ = step;
  }
  int asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

  void drain(StepSink&) noexcept override {}
  bool flight(std::uint64_t last_step, FlightRecording& out) override {
    const std::lock_guard lock(mutex_);
    ++asked_;
    const std::uint64_t first = last_ > 63 ? last_ - 63 : 1;
    for (std::uint32_t t = 0; t < tensors_; ++t) out.tensors.push_back({t, 10 * t, 10});
    for (std::uint64_t step = first; step <= std::min(last_, last_step); ++step) {
      out.steps.push_back({step, static_cast<double>(step)});
      for (std::uint32_t t = 0; t < tensors_; ++t) {
        out.entries.push_back({static_cast<double>(step + t), 1, step == last_ ? t % 2 : 0, 0});
      }
    }
    return !out.steps.empty();
  }

 private:
  const std::uint32_t tensors_;
  mutable std::mutex mutex_;
  std::uint64_t last_ = 0;
  int asked_ = 0;
};

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_FLIGHT_SOURCE_H_
