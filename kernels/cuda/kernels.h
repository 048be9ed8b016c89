// The kernels' addresses, for launch() (launch.h). Host code includes this and needs no nvcc.
//
// A step is at most four launches, in this order on one stream: statistics, fold, (the collective,)
// decide, apply; without the last where the optimizer takes found_inf and grad_scale. The grids may
// have any size: results do not depend on them. Blocks have kBlockThreads threads; decide takes
// one. Adaptive clipping adds statistics and fold of the parameters. An inspection adds those of
// the lists that it reads, digest (audits alone), seal, (a collective of its own,) and deliver,
// which takes one block.
#ifndef GRADWARDEN_KERNELS_CUDA_KERNELS_H_
#define GRADWARDEN_KERNELS_CUDA_KERNELS_H_

#include <cstdint>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/inspection.h"

namespace gradwarden::kernels::cuda {

using StatisticsKernel = void (*)(const TensorEntry* tensors, const ChunkEntry* chunks,
                                  std::uint64_t chunk_count, double p, ChunkStatistics* out);
using FoldKernel = void (*)(FoldArguments);
using DecideKernel = void (*)(DecideArguments);
using ApplyKernel = void (*)(const TensorEntry* tensors, const ChunkEntry* chunks,
                             std::uint64_t chunk_count, const Factor* factors, bool by_tensor,
                             const StepResult* result);

using DigestKernel = void (*)(DigestArguments);
using SealKernel = void (*)(SealArguments);
using DeliverKernel = void (*)(DeliverArguments);

StatisticsKernel find_statistics_kernel(NormType norm);
FoldKernel find_fold_kernel();
DecideKernel find_decide_kernel();
ApplyKernel find_apply_kernel();
DigestKernel find_digest_kernel();
SealKernel find_seal_kernel();
DeliverKernel find_deliver_kernel();

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_KERNELS_H_
