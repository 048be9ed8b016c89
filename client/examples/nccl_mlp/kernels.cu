#include "client/examples/nccl_mlp/kernels.cuh"
#include "client/examples/nccl_mlp/kernels.h"
#include "kernels/cuda/launch.h"

namespace nccl_mlp {
namespace {

// One thread for each of `count` values.
template <typename Arguments>
cudaError_t launch_for(void (*kernel)(Arguments), int count, cudaStream_t stream,
                       const Arguments& arguments) {
  constexpr int kBlock = 128;
  const auto grid = static_cast<unsigned>((count + kBlock - 1) / kBlock);
  return launch(kernel, grid, kBlock, stream, arguments);
}

}  // namespace

cudaError_t enqueue_gradients(const Training& t, cudaStream_t stream) {
  cudaError_t error = launch_for(make_batch_kernel, t.rows, stream, t);
  if (error == cudaSuccess) error = launch_for(hidden_kernel, t.rows * kHidden, stream, t);
  if (error == cudaSuccess) error = launch_for(output_error_kernel, t.rows * kOutputs, stream, t);
  if (error == cudaSuccess) error = launch_for(hidden_error_kernel, t.rows * kHidden, stream, t);
  if (error == cudaSuccess) error = launch_for(gradient_kernel, kParameters + 1, stream, t);
  return error;
}

cudaError_t enqueue_update(const Adam& adam, cudaStream_t stream) {
  return launch_for(adam_kernel, adam.count, stream, adam);
}

cudaError_t enqueue_advance(const Adam& adam, cudaStream_t stream) {
  return launch_for(advance_kernel, 1, stream, adam);
}

}  // namespace nccl_mlp
