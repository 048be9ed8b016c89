// The device's work of a step, enqueued on a stream by plain function calls. Nothing waits; the
// result is the runtime's error. For the device that is current.
#ifndef GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_H_
#define GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_H_

#include <cuda_runtime_api.h>

#include "client/examples/nccl_mlp/model.h"

namespace nccl_mlp {

// This step's batch; loss and gradients of this rank.
cudaError_t enqueue_gradients(const Training& training, cudaStream_t stream);
// One update of the shard, or none.
cudaError_t enqueue_update(const Adam& adam, cudaStream_t stream);
// Counts the step that ends and goes on to the next.
cudaError_t enqueue_advance(const Adam& adam, cudaStream_t stream);

}  // namespace nccl_mlp

#endif  // GRADWARDEN_EXAMPLES_NCCL_MLP_KERNELS_H_
