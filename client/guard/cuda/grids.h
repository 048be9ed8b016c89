// How many blocks each kernel of a step is launched with: what the device can hold at once, and no
// more than there is work. Results do not depend on it.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_GRIDS_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_GRIDS_H_

#include "kernels/cuda/plan.h"

namespace gradwarden::guard {

struct Grids {
  unsigned statistics = 1;
  unsigned fold = 1;
  unsigned apply = 1;
  unsigned digest = 1;
};

// For the current device. Throws Error.
Grids grids_for(const kernels::cuda::Plan& plan);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_GRIDS_H_
