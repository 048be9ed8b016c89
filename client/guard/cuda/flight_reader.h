// The host's end of the flight recorder of GPU memory (layout and protocol: kernels/cuda/flight.h).
//
// Reads pinned memory only: no call of the CUDA runtime, so it disturbs no capture and works after
// the context broke. Several threads may read while kernels write; none while build() runs.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_FLIGHT_READER_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_FLIGHT_READER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/cuda/memory.h"
#include "gradwarden/step_record.h"
#include "kernels/cuda/flight.h"
#include "kernels/cuda/record.h"

namespace gradwarden::guard {

class FlightReader {
 public:
  // Throws Error. No segments: off, no memory. `progress` outlives the reading.
  void build(std::span<const Segment> segments, double norm_type,
             const kernels::cuda::Progress* progress);

  // Off, before the memory of `progress` goes.
  void clear();

  // For the kernels.
  kernels::cuda::FlightRing ring() const;

  // The steps up to the newest that has the number `last_step` (null: up to the newest), at most
  // kFlightSteps. False if there are none.
  bool read(const std::uint64_t* last_step, FlightRecording& out) const;

 private:
  // Copies one step; false if it is not there, or not any more.
  bool copy(std::uint64_t fold, FlightStep& step, FlightEntry* entries) const;

  double norm_type_ = 2;
  const kernels::cuda::Progress* progress_ = nullptr;
  std::vector<FlightTensor> tensors_;
  std::uint64_t slot_bytes_ = 0;
  PinnedMemory slots_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_FLIGHT_READER_H_
