// Devices, errors, versions.
#include <cuda_runtime_api.h>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/capture.h"

namespace gradwarden::emulator {
namespace {

struct ThreadState {
  std::uint64_t epoch = 0;
  int device = 0;
  cudaError_t last_error = cudaSuccess;
};

ThreadState& thread_state() {
  thread_local ThreadState state;
  const std::uint64_t epoch = Machine::get().epoch();
  if (state.epoch != epoch) state = {epoch, 0, cudaSuccess};
  return state;
}

struct Text {
  cudaError_t error;
  const char* name;
  const char* meaning;
};

constexpr Text kTexts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no device is detected"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "not permitted in this state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "not ready yet"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was found"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotPermitted, "cudaErrorNotPermitted", "not permitted here"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "not permitted while a stream captures"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "the capture was made invalid by an earlier call"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge", "two captures would merge"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "the capture began on another stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined",
     "a stream of the capture was not joined to its origin"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "the capture would depend on work outside of it"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "the capture would depend on the legacy stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "the event was recorded in a capture"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "the capture began on another thread"},
};

}  // namespace

int current_device() { return thread_state().device; }
void set_current_device(int device) { thread_state().device = device; }
cudaError_t last_error() { return thread_state().last_error; }
void set_last_error(cudaError_t error) { thread_state().last_error = error; }

void wait_for_device(int device) {
  for (const auto& stream : streams_of(device)) stream->wait();
}

}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return call("cudaGetDeviceCount", [&] {
    if (count == nullptr) return cudaErrorInvalidValue;
    *count = Machine::get().settings().device_count;
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
  });
}

cudaError_t cudaSetDevice(int device) {
  auto error = static_cast<cudaError_t>(Machine::get().enter("cudaSetDevice"));
  if (error == cudaSuccess && (device < 0 || device >= Machine::get().settings().device_count))
    error = cudaErrorInvalidDevice;
  if (error == cudaSuccess) {
    set_current_device(device);
    error = Machine::get().sticky(device);
  }
  if (error != cudaSuccess) set_last_error(error);
  return error;
}

cudaError_t cudaGetDevice(int* device) {
  auto error = static_cast<cudaError_t>(Machine::get().enter("cudaGetDevice"));
  if (error == cudaSuccess && device == nullptr) error = cudaErrorInvalidValue;
  if (error == cudaSuccess) *device = current_device();
  if (error != cudaSuccess) set_last_error(error);
  return error;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call("cudaDeviceGetAttribute", [&] {
    const Settings settings = Machine::get().settings();
    if (value == nullptr) return cudaErrorInvalidValue;
    if (device < 0 || device >= settings.device_count) return cudaErrorInvalidDevice;
    switch (attribute) {
      case cudaDevAttrMultiProcessorCount:
        *value = settings.multiprocessors;
        return cudaSuccess;
      case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        return cudaSuccess;
      case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        return cudaSuccess;
      case cudaDevAttrMaxGridDimX:
        *value = 2147483647;
        return cudaSuccess;
      case cudaDevAttrWarpSize:
        *value = 32;
        return cudaSuccess;
      case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        return cudaSuccess;
      case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        return cudaSuccess;
      case cudaDevAttrCanMapHostMemory:
      case cudaDevAttrUnifiedAddressing:
      case cudaDevAttrCanUseHostPointerForRegisteredMem:
        *value = 1;
        return cudaSuccess;
      default:
        return cudaErrorInvalidValue;
    }
  });
}

cudaError_t cudaDeviceSynchronize() {
  return blocking_call("cudaDeviceSynchronize", [] {
    if (const cudaError_t error = refuse_capturing_device(current_device())) return error;
    if (const cudaError_t error = refuse_unsafe()) return error;
    Machine::get().count([](RuntimeCounters& c) { ++c.device_synchronisations; });
    wait_for_device(current_device());
    return cudaSuccess;
  });
}

cudaError_t cudaGetLastError() {
  Machine::get().enter("cudaGetLastError");
  const cudaError_t error = cudaPeekAtLastError();
  set_last_error(cudaSuccess);
  return error;
}

cudaError_t cudaPeekAtLastError() {
  const cudaError_t sticky = Machine::get().sticky(current_device());
  return sticky != cudaSuccess ? sticky : last_error();
}

const char* cudaGetErrorString(cudaError_t error) {
  for (const Text& text : kTexts) {
    if (text.error == error) return text.meaning;
  }
  return "an error that the emulated runtime has no text for";
}

const char* cudaGetErrorName(cudaError_t error) {
  for (const Text& text : kTexts) {
    if (text.error == error) return text.name;
  }
  return "cudaErrorWithoutName";
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  return call("cudaRuntimeGetVersion", [&] {
    if (version == nullptr) return cudaErrorInvalidValue;
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

cudaError_t cudaDriverGetVersion(int* version) {
  return call("cudaDriverGetVersion", [&] {
    if (version == nullptr) return cudaErrorInvalidValue;
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}

}  // extern "C"
