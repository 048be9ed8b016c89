// The one way to launch a kernel: an ordinary function call, so that headers need no <<<>>> and
// host code needs no nvcc.
//
// The arguments are copied before the call returns; the kernel runs later, in the stream's order.
// The result is the runtime's error, to be handled by the caller; nothing waits, and the runtime's
// sticky error is not read or cleared. Safe to call from any thread.
#ifndef GRADWARDEN_KERNELS_CUDA_LAUNCH_H_
#define GRADWARDEN_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime_api.h>

namespace gradwarden::kernels::cuda {

template <typename T>
struct Same {
  using Type = T;
};

template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), unsigned grid, unsigned block,
                   cudaStream_t stream, typename Same<Parameters>::Type... arguments) {
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))..., nullptr};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(grid), dim3(block), pointers,
                          0, stream);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_LAUNCH_H_
