// The emulated GPU's interface on a real one, so that the same tests of kernels run on both.
#include "tests/emulator/launcher.h"

#include <cuda_runtime_api.h>

#include "tests/emulator/hardware/run.h"

namespace gradwarden::emulator {
namespace hardware {
namespace {

std::string found;  // since the last take

}  // namespace

int gpu_count() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

std::string trouble() {
  const cudaError_t error = cudaPeekAtLastError();
  return error == cudaSuccess ? std::string() : cudaGetErrorString(error);
}

void run(const void* kernel, unsigned grid, unsigned block, void** arguments) {
  cudaError_t error = cudaLaunchKernel(kernel, dim3(grid), dim3(block), arguments, 0, nullptr);
  if (error == cudaSuccess) error = cudaDeviceSynchronize();
  if (error != cudaSuccess && found.empty()) found = cudaGetErrorString(error);
}

}  // namespace hardware

// Orders are the hardware's own; memory needs no registration.
struct Launcher::Impl {
  Counters counters;
};

Launcher::Launcher(Order, std::uint64_t) : impl_(std::make_unique<Impl>()) {}
Launcher::~Launcher() = default;
void Launcher::register_buffer(const void*, std::size_t) {}
void Launcher::unregister_buffer(const void*) {}
const Counters& Launcher::counters() const { return impl_->counters; }
bool Launcher::counts() { return false; }

std::vector<Violation> Launcher::take_violations() {
  std::vector<Violation> violations;
  if (!hardware::found.empty()) violations.push_back({Finding::kGlobalBounds, hardware::found});
  hardware::found.clear();
  return violations;
}

const char* name_of(Finding) { return "the GPU reports"; }

}  // namespace gradwarden::emulator
