// Puts a flight recording together from the steps of a ring, read from the newest back.
//
// Both recorders, in host memory and on the device, write while this reads: a step that was
// overwritten meanwhile is left out. One reader's own; allocates.
#ifndef GRADWARDEN_CLIENT_GUARD_FLIGHT_ASSEMBLY_H_
#define GRADWARDEN_CLIENT_GUARD_FLIGHT_ASSEMBLY_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gradwarden/step_record.h"

namespace gradwarden::guard {

inline constexpr std::size_t kFlightSteps = 64;

class FlightAssembly {
 public:
  // With `last_step` the newest step taken is the one of that number. Both outlive this object.
  FlightAssembly(const std::vector<FlightTensor>& tensors, const std::uint64_t* last_step)
      : tensors_(tensors), last_step_(last_step), entries_(tensors.size()) {}

  bool full() const { return steps_.size() == kFlightSteps; }

  // `copy(step, entries)` fills in one step; false if it is not there any more.
  template <typename Copy>
  void add(const Copy& copy) {
    FlightStep step;
    if (!copy(step, entries_.data())) return;
    if (steps_.empty() && last_step_ != nullptr && step.step != *last_step_) return;
    steps_.push_back(step);
    all_.insert(all_.end(), entries_.begin(), entries_.end());
  }

  // In the order of time. False, with `out` as it was, if no step was found.
  bool finish(FlightRecording& out) const {
    if (steps_.empty()) return false;
    const std::size_t width = tensors_.size();
    out.tensors = tensors_;
    out.steps.assign(steps_.rbegin(), steps_.rend());
    out.entries.clear();
    for (std::size_t i = steps_.size(); i-- > 0;) {
      const auto row = all_.begin() + static_cast<std::ptrdiff_t>(i * width);
      out.entries.insert(out.entries.end(), row, row + static_cast<std::ptrdiff_t>(width));
    }
    return true;
  }

 private:
  const std::vector<FlightTensor>& tensors_;
  const std::uint64_t* last_step_;
  std::vector<FlightEntry> entries_;
  std::vector<FlightStep> steps_;  // the newest first
  std::vector<FlightEntry> all_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_FLIGHT_ASSEMBLY_H_
