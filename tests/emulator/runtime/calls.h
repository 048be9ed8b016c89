// What every emulated CUDA call begins and ends with, and the thread's own state.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_CALLS_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_CALLS_H_

#include <cuda_runtime_api.h>

#include <memory>
#include <string>
#include <utility>

#include "tests/emulator/runtime/machine.h"
#include "tests/emulator/runtime/stream.h"

namespace gradwarden::emulator {

// This thread's device.
int current_device();
void set_current_device(int device);
// The last error of a call on this thread; read and cleared by cudaGetLastError alone.
cudaError_t last_error();
void set_last_error(cudaError_t error);

// Counts the call, fails it if that was asked for or if the device has failed before, and keeps its
// error as the thread's last.
template <typename Body>
cudaError_t call(const char* name, Body body) {
  Machine& machine = Machine::get();
  auto error = static_cast<cudaError_t>(machine.enter(name));
  if (error == cudaSuccess && in_host_function()) {
    machine.violate(current_device(), std::string(name) + " is called from a host function",
                    cudaSuccess);
    error = cudaErrorNotPermitted;
  }
  if (error == cudaSuccess) error = machine.sticky(current_device());
  if (error == cudaSuccess) error = body();
  if (error != cudaSuccess) set_last_error(error);
  return error;
}

// A call about a stream: looks it up first.
template <typename Body>
cudaError_t stream_call(const char* name, cudaStream_t handle, Body body) {
  return call(name, [&] {
    const std::shared_ptr<Stream> stream = find_stream(handle, current_device());
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    return static_cast<cudaError_t>(body(*stream));
  });
}

// A call that waits for the device: refused under capture, then counted as blocking.
template <typename Body>
cudaError_t blocking_call(const char* name, Body body) {
  return call(name, [&] {
    Machine::get().count_blocking(name);
    const cudaError_t error = body();
    // What ran meanwhile may have failed.
    return error != cudaSuccess ? error : Machine::get().sticky(current_device());
  });
}

// Waits for all streams of a device.
void wait_for_device(int device);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_CALLS_H_
