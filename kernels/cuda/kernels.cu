// Every kernel that the product launches, compiled once: by nvcc for GPUs, by the host compiler for
// the emulated GPU of tests/emulator.
#include "kernels/cuda/apply.cuh"
#include "kernels/cuda/decide.cuh"
#include "kernels/cuda/digest.cuh"
#include "kernels/cuda/fold.cuh"
#include "kernels/cuda/inspection.cuh"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/statistics.cuh"

namespace gradwarden::kernels::cuda {

StatisticsKernel find_statistics_kernel(NormType norm) {
  switch (norm) {
    case NormType::kTwo:
      return statistics_kernel<NormType::kTwo>;
    case NormType::kOne:
      return statistics_kernel<NormType::kOne>;
    case NormType::kInfinity:
      return statistics_kernel<NormType::kInfinity>;
    case NormType::kOther:
      break;
  }
  return statistics_kernel<NormType::kOther>;
}

FoldKernel find_fold_kernel() { return fold_kernel; }
DecideKernel find_decide_kernel() { return decide_kernel; }
ApplyKernel find_apply_kernel() { return apply_kernel; }
DigestKernel find_digest_kernel() { return digest_kernel; }
SealKernel find_seal_kernel() { return seal_kernel; }
DeliverKernel find_deliver_kernel() { return deliver_kernel; }

}  // namespace gradwarden::kernels::cuda
