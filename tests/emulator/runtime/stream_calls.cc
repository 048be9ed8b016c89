// Streams, events, host functions, launches.
#include <cuda_runtime_api.h>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/handles.h"
#include "tests/emulator/runtime/kernel_registry.h"
#include "tests/emulator/runtime/tables.h"

namespace gradwarden::emulator {
namespace {

cudaError_t create_stream(cudaStream_t* out, unsigned flags, int priority) {
  if (out == nullptr || (flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) != 0)
    return cudaErrorInvalidValue;
  *out = add_stream(std::make_shared<Stream>(current_device(), flags, priority, false));
  return cudaSuccess;
}

cudaError_t create_event(cudaEvent_t* out, unsigned flags) {
  if (out == nullptr) return cudaErrorInvalidValue;
  auto event = std::make_shared<Event>();
  event->device = current_device();
  event->flags = flags;
  *out = events().add(std::move(event));
  return cudaSuccess;
}

Work kernel_work(int device, std::shared_ptr<const RegisteredKernel> kernel, unsigned grid,
                 unsigned block, std::function<void()> thread) {
  return {[=] {
    Machine::get().count([](RuntimeCounters& c) { ++c.kernel_launches; });
    return live_task([=] { run_kernel(device, kernel->name, grid, block, thread); });
  }};
}

Work host_work(cudaHostFn_t function, void* data) {
  return {[=] {
    Machine::get().count([](RuntimeCounters& c) { ++c.host_functions; });
    return live_task([=] {
      in_host_function() = true;
      function(data);
      in_host_function() = false;
    });
  }};
}

}  // namespace

Handles<Event, cudaEvent_t>& events() {
  static auto& only = *new Handles<Event, cudaEvent_t>;
  return only;
}

}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return call("cudaStreamCreate", [&] { return create_stream(stream, cudaStreamDefault, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call("cudaStreamCreateWithFlags", [&] { return create_stream(stream, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return call("cudaStreamCreateWithPriority",
              [&] { return create_stream(stream, flags, priority); });
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return stream_call("cudaStreamDestroy", handle, [&](Stream& stream) {
    if (stream.is_legacy) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = refuse_capturing(stream)) return error;
    return remove_stream(handle) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return blocking_call("cudaStreamSynchronize", [&] {
    const std::shared_ptr<Stream> stream = find_stream(handle, current_device());
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = refuse_capturing(*stream)) return error;
    if (const cudaError_t error = refuse_unsafe()) return error;
    Machine::get().count([](RuntimeCounters& c) { ++c.stream_synchronisations; });
    stream->wait();
    return Machine::get().sticky(stream->device);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return stream_call("cudaStreamQuery", handle, [&](Stream& stream) {
    if (const cudaError_t error = refuse_capturing(stream)) return error;
    if (const cudaError_t error = refuse_unsafe()) return error;
    Machine::get().count([](RuntimeCounters& c) { ++c.stream_queries; });
    return stream.idle() ? Machine::get().sticky(stream.device) : cudaErrorNotReady;
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned flags) {
  return stream_call("cudaStreamWaitEvent", handle, [&](Stream& stream) {
    const std::shared_ptr<Event> event = events().find(event_handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (flags != cudaEventWaitDefault) return cudaErrorNotSupported;
    return wait_event(stream, *event);
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call("cudaEventCreate", [&] { return create_event(event, cudaEventDefault); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call("cudaEventCreateWithFlags", [&] { return create_event(event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call("cudaEventDestroy", [&] {
    return events().take(event) != nullptr ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t stream_handle) {
  return stream_call("cudaEventRecord", stream_handle, [&](Stream& stream) {
    const std::shared_ptr<Event> event = events().find(handle);
    if (event == nullptr || event->device != stream.device) return cudaErrorInvalidResourceHandle;
    Machine::get().count([](RuntimeCounters& c) { ++c.event_records; });
    return record_event(*event, stream);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return call("cudaEventQuery", [&] {
    const std::shared_ptr<Event> event = events().find(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = refuse_captured(*event)) return error;
    if (const cudaError_t error = refuse_unsafe()) return error;
    Machine::get().count([](RuntimeCounters& c) { ++c.event_queries; });
    const auto last = last_record(*event);
    const bool over = last == nullptr || last->done();
    return over ? Machine::get().sticky(event->device) : cudaErrorNotReady;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return blocking_call("cudaEventSynchronize", [&] {
    const std::shared_ptr<Event> event = events().find(handle);
    if (event == nullptr) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = refuse_captured(*event)) return error;
    if (const cudaError_t error = refuse_unsafe()) return error;
    Machine::get().count([](RuntimeCounters& c) { ++c.event_synchronisations; });
    if (const auto last = last_record(*event)) last->wait();
    return Machine::get().sticky(event->device);
  });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call("cudaEventElapsedTime", [&] {
    const std::shared_ptr<Event> first = events().find(start);
    const std::shared_ptr<Event> second = events().find(end);
    if (first == nullptr || second == nullptr || milliseconds == nullptr)
      return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = refuse_captured(*first)) return error;
    if (const cudaError_t error = refuse_captured(*second)) return error;
    const auto from = last_record(*first);
    const auto to = last_record(*second);
    if (from == nullptr || to == nullptr ||
        ((first->flags | second->flags) & cudaEventDisableTiming) != 0)
      return cudaErrorInvalidResourceHandle;
    if (!from->done() || !to->done()) return cudaErrorNotReady;
    *milliseconds = static_cast<float>(to->time() - from->time());
    return cudaSuccess;
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t function, void* data) {
  return stream_call("cudaLaunchHostFunc", handle, [&](Stream& stream) {
    if (function == nullptr) return cudaErrorInvalidValue;
    return submit(stream, host_work(function, data));
  });
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t handle) {
  return stream_call("cudaLaunchKernel", handle, [&](Stream& stream) {
    const std::shared_ptr<const RegisteredKernel> kernel = find_kernel(function);
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    const bool flat = grid.y == 1 && grid.z == 1 && block.y == 1 && block.z == 1;
    // What the emulator cannot run is refused too: parts of warps, shared memory sized at launch.
    if (!flat || grid.x == 0 || block.x == 0 || block.x > 1024 || block.x % 32 != 0 ||
        shared_bytes != 0)
      return cudaErrorInvalidConfiguration;
    if (stream.device != current_device()) return cudaErrorInvalidResourceHandle;
    return submit(stream,
                  kernel_work(stream.device, kernel, grid.x, block.x, kernel->bind(arguments)));
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return call("cudaFuncGetAttributes", [&] {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    if (find_kernel(function) == nullptr) return cudaErrorInvalidDeviceFunction;
    *attributes = {};
    attributes->maxThreadsPerBlock = 1024;
    attributes->numRegs = 40;
    attributes->binaryVersion = 90;
    attributes->ptxVersion = 90;
    return cudaSuccess;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int block_size, size_t) {
  return call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&] {
    if (blocks == nullptr || block_size < 1 || block_size > 1024) return cudaErrorInvalidValue;
    if (find_kernel(function) == nullptr) return cudaErrorInvalidDeviceFunction;
    *blocks = 2048 / block_size < 32 ? 2048 / block_size : 32;
    return cudaSuccess;
  });
}

}  // extern "C"
