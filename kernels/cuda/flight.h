// The flight recorder of GPU memory: what the fold learnt of each tensor of this rank in the last
// steps, in a ring in mapped pinned memory. Posted writes of kernels that run anyway; the host
// reads it without a call of the CUDA runtime, so also after the context broke.
//
// Slot `fold % kFlightRingSlots`, folds counted from 0 within the binding, holds a FlightHeader and
// one FlightSums per recorded tensor of the plan. The fold writes the sums and then tells its
// number in Progress::folded; the decision that follows writes the header. A slot is whole if its
// header names the fold, and was not written to while it was read if, afterwards, fewer than
// kFlightRingSlots folds more have been told: a fold begins only when the one before it has ended.
#ifndef GRADWARDEN_KERNELS_CUDA_FLIGHT_H_
#define GRADWARDEN_KERNELS_CUDA_FLIGHT_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels::cuda {

inline constexpr std::uint64_t kFlightRingSlots = 96;

struct FlightHeader {
  std::uint64_t folds = 0;  // told when this one had ended: its number + 1; 0: never written
  std::uint64_t step = 0;   // the trainer's
  double norm = 0;          // NaN if not finite
  std::uint32_t decision = 0;
  std::uint32_t reason = 0;
};

struct FlightSums {
  double power_sum = 0;  // for p = infinity the largest magnitude
  float max_abs = 0;
  std::uint32_t non_finite_count = 0;  // saturates
  std::uint64_t zero_count = 0;
};
static_assert(sizeof(FlightHeader) == 32 && sizeof(FlightSums) == 24);

struct FlightRing {
  unsigned char* slots = nullptr;  // null: off
  std::uint64_t slot_bytes = 0;
  std::uint32_t tensors = 0;  // of the plan that are recorded: the first
};

GRADWARDEN_HD constexpr std::uint64_t flight_slot_bytes(std::uint64_t tensors) {
  return sizeof(FlightHeader) + tensors * sizeof(FlightSums);
}

GRADWARDEN_HD inline FlightHeader* flight_slot(const FlightRing& ring, std::uint64_t fold) {
  return reinterpret_cast<FlightHeader*>(ring.slots + fold % kFlightRingSlots * ring.slot_bytes);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_FLIGHT_H_
