// The kernels' addresses, for launch() (launch.h). Host code includes this and needs no nvcc.
//
// A step is at most four launches, in this order on one stream: statistics, fold, (the collective,)
// decide, apply; without the last where the optimizer takes found_inf and grad_scale. The grids may
// have any size: results do not depend on them. Blocks have kBlockThreads threads; decide takes
// one.
#ifndef GRADWARDEN_KERNELS_CUDA_KERNELS_H_
#define GRADWARDEN_KERNELS_CUDA_KERNELS_H_

#include <cstdint>

#include "kernels/cuda/arguments.h"

namespace gradwarden::kernels::cuda {

using StatisticsKernel = void (*)(const TensorEntry* tensors, const ChunkEntry* chunks,
                                  std::uint64_t chunk_count, double p, ChunkStatistics* out);
using FoldKernel = void (*)(FoldArguments);
using DecideKernel = void (*)(DecideArguments);
using ApplyKernel = void (*)(const TensorEntry* tensors, const ChunkEntry* chunks,
                             std::uint64_t chunk_count, const Factor* factors, bool by_tensor,
                             const StepResult* result);

StatisticsKernel find_statistics_kernel(NormType norm);
FoldKernel find_fold_kernel();
DecideKernel find_decide_kernel();
ApplyKernel find_apply_kernel();

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_KERNELS_H_
