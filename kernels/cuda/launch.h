// The one way to launch a kernel: an ordinary function call, so that headers need no <<<>>> and the
// emulated GPU runs the same host code.
//
// The arguments are copied before the call returns; the kernel runs later, in the stream's order.
// On a GPU the result is the runtime's error, to be handled by the caller; nothing waits, and the
// runtime's sticky error is not read or cleared. Safe to call from any thread.
#ifndef GRADWARDEN_KERNELS_CUDA_LAUNCH_H_
#define GRADWARDEN_KERNELS_CUDA_LAUNCH_H_

#include <type_traits>

#ifdef GRADWARDEN_EMULATOR
#include GRADWARDEN_EMULATOR  // names the header that stands in for CUDA
#else
#include <cuda_runtime_api.h>
#endif

namespace gradwarden::kernels::cuda {

#ifdef GRADWARDEN_EMULATOR
// Runs at once, on the given emulated device.
template <typename... Parameters>
void launch(void (*kernel)(Parameters...), unsigned grid, unsigned block,
            emulator::Launcher& device, std::type_identity_t<Parameters>... arguments) {
  device.run(grid, block, [&] { kernel(arguments...); });
}
#else
template <typename T>
struct Same {
  using Type = T;
};

template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), unsigned grid, unsigned block,
                   cudaStream_t stream, typename Same<Parameters>::Type... arguments) {
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(grid), dim3(block), pointers,
                          0, stream);
}
#endif

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_LAUNCH_H_
