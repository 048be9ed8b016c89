// Memory, copies, memsets.
//
// Host and device share their addresses. A copy from pinned or device memory reads its source when
// it runs; from pageable memory it was read at the call, as CUDA stages it, and into pageable
// memory the call waits.
#include <cuda_runtime_api.h>

#include <cstring>
#include <vector>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/capture.h"

namespace gradwarden::emulator {
namespace {

using Kind = MemoryMap::Kind;
using Place = MemoryMap::Place;

MemoryMap::Answer look(const void* at, std::size_t bytes) {
  return Machine::get().memory_map()->find(at, bytes);
}

bool pageable(const MemoryMap::Answer& answer) { return answer.range.bytes == 0; }

// Whether memory of the runtime's, if it is that, holds all of it and is what `device` asks for.
bool acceptable(const MemoryMap::Answer& answer, bool device) {
  if (pageable(answer)) return !device;
  return answer.place == Place::kInside;
}

bool acceptable(const MemoryMap::Answer& to, const MemoryMap::Answer& from, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return acceptable(to, false) && acceptable(from, false);
    case cudaMemcpyHostToDevice:
      return acceptable(to, true) && acceptable(from, false);
    case cudaMemcpyDeviceToHost:
      return acceptable(to, false) && acceptable(from, true);
    case cudaMemcpyDeviceToDevice:
      return acceptable(to, true) && acceptable(from, true);
    case cudaMemcpyDefault:
      return acceptable(to, false) && acceptable(from, false);
  }
  return false;
}

// Memory may have been freed between the call and now.
bool still_there(int device, const void* at, std::size_t bytes, const char* what) {
  if (bytes == 0 || look(at, bytes).place != Place::kFreed) return true;
  Machine::get().violate(device, std::string(what) + " of memory that was freed",
                         cudaErrorIllegalAddress);
  return false;
}

void copy(int device, void* to, const void* from, std::size_t bytes) {
  if (!still_there(device, to, bytes, "copy into") || !still_there(device, from, bytes, "copy out"))
    return;
  std::memmove(to, from, bytes);
}

Work copy_work(int device, void* to, const void* from, std::size_t bytes) {
  return {[=] {
    Machine::get().count([&](RuntimeCounters& c) {
      ++c.async_copies;
      c.async_copy_bytes += bytes;
    });
    return live_task([=] { copy(device, to, from, bytes); });
  }};
}

Work staged_copy_work(int device, void* to, const void* from, std::size_t bytes) {
  const auto* first = static_cast<const unsigned char*>(from);
  auto staged = std::make_shared<std::vector<unsigned char>>(first, first + bytes);
  Work work = copy_work(device, to, staged->data(), bytes);
  return {[staged, work] { return [staged, task = work.bind()](bool dead) { task(dead); }; }};
}

bool is_capturing(Stream& stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return capture_status(stream, &status, nullptr) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

cudaError_t copy_async(Stream& stream, void* to, const void* from, std::size_t bytes,
                       cudaMemcpyKind kind) {
  if (bytes == 0) return cudaSuccess;
  if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
  const MemoryMap::Answer target = look(to, bytes);
  const MemoryMap::Answer source = look(from, bytes);
  if (!acceptable(target, source, kind)) return cudaErrorInvalidValue;
  if (is_capturing(stream)) return submit(stream, copy_work(stream.device, to, from, bytes));
  if (pageable(source)) return submit(stream, staged_copy_work(stream.device, to, from, bytes));
  const cudaError_t error = submit(stream, copy_work(stream.device, to, from, bytes));
  if (error == cudaSuccess && pageable(target)) {
    Machine::get().count_blocking("cudaMemcpyAsync into pageable memory");
    stream.wait();
  }
  return error;
}

Work memset_work(int device, void* at, int value, std::size_t bytes) {
  return {[=] {
    Machine::get().count([](RuntimeCounters& c) { ++c.memsets; });
    return live_task([=] {
      if (still_there(device, at, bytes, "memset")) std::memset(at, value, bytes);
    });
  }};
}

cudaError_t set_async(Stream& stream, void* at, int value, std::size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  if (at == nullptr || look(at, bytes).place != Place::kInside) return cudaErrorInvalidValue;
  return submit(stream, memset_work(stream.device, at, value, bytes));
}

cudaError_t allocate(void** at, std::size_t bytes, Kind kind) {
  if (at == nullptr) return cudaErrorInvalidValue;
  *at = nullptr;
  if (bytes == 0) return cudaSuccess;
  *at = Machine::get().allocate(bytes, kind, current_device());
  if (*at == nullptr) return cudaErrorMemoryAllocation;
  Machine::get().count([](RuntimeCounters& c) { ++c.allocations; });
  return cudaSuccess;
}

cudaError_t release(void* at, Kind kind) {
  if (!Machine::get().release(at, kind)) return cudaErrorInvalidValue;
  Machine::get().count([](RuntimeCounters& c) { ++c.frees; });
  return cudaSuccess;
}

// A free waits for the device that holds the memory, since work may still use it.
cudaError_t wait_and_release(void* at, Kind kind) {
  if (at == nullptr) return cudaSuccess;
  if (const cudaError_t error = refuse_unsafe()) return error;
  const MemoryMap::Answer answer = look(at, 1);
  if (answer.place != Place::kInside) return cudaErrorInvalidValue;
  wait_for_device(answer.range.device);
  return release(at, kind);
}

}  // namespace
}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

cudaError_t cudaMalloc(void** at, size_t bytes) {
  return call("cudaMalloc", [&] {
    if (const cudaError_t error = refuse_unsafe()) return error;
    return allocate(at, bytes, Kind::kDevice);
  });
}

cudaError_t cudaFree(void* at) {
  return blocking_call("cudaFree", [&] { return wait_and_release(at, Kind::kDevice); });
}

cudaError_t cudaMallocAsync(void** at, size_t bytes, cudaStream_t handle) {
  return stream_call("cudaMallocAsync", handle, [&](Stream& stream) {
    if (is_capturing(stream)) return refuse_capturing(stream);  // needs nodes that own memory
    return allocate(at, bytes, Kind::kDevice);
  });
}

cudaError_t cudaFreeAsync(void* at, cudaStream_t handle) {
  return stream_call("cudaFreeAsync", handle, [&](Stream& stream) {
    if (is_capturing(stream)) return refuse_capturing(stream);
    if (at == nullptr) return cudaSuccess;
    if (look(at, 1).place != Place::kInside) return cudaErrorInvalidValue;
    return submit(stream, {[at] { return [at](bool) { release(at, Kind::kDevice); }; }});
  });
}

cudaError_t cudaHostAlloc(void** at, size_t bytes, unsigned flags) {
  return call("cudaHostAlloc", [&] {
    constexpr unsigned kKnown =
        cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
    if ((flags & ~kKnown) != 0) return cudaErrorInvalidValue;
    if (const cudaError_t error = refuse_unsafe()) return error;
    return allocate(at, bytes, Kind::kPinned);
  });
}

cudaError_t cudaFreeHost(void* at) {
  return blocking_call("cudaFreeHost", [&] { return wait_and_release(at, Kind::kPinned); });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags) {
  return call("cudaHostGetDevicePointer", [&] {
    if (device == nullptr || flags != 0) return cudaErrorInvalidValue;
    const MemoryMap::Answer answer = look(host, 1);
    if (answer.place != Place::kInside || answer.range.kind != Kind::kPinned)
      return cudaErrorInvalidValue;
    *device = host;
    return cudaSuccess;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* at) {
  return call("cudaPointerGetAttributes", [&] {
    if (attributes == nullptr) return cudaErrorInvalidValue;
    *attributes = {};
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->device = -2;  // cudaInvalidDeviceId
    const MemoryMap::Answer answer = look(at, 1);
    if (answer.place != Place::kInside) return cudaSuccess;
    const bool pinned = answer.range.kind == Kind::kPinned;
    attributes->type = pinned ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
    attributes->device = answer.range.device;
    attributes->devicePointer = const_cast<void*>(at);
    attributes->hostPointer = pinned ? const_cast<void*>(at) : nullptr;
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return blocking_call("cudaMemcpy", [&] {
    const std::shared_ptr<Stream> stream = find_stream(nullptr, current_device());
    if (const cudaError_t error = refuse_unsafe()) return error;
    if (const cudaError_t error = refuse_capturing(*stream)) return error;
    if (bytes == 0) return cudaSuccess;
    if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
    if (!acceptable(look(to, bytes), look(from, bytes), kind)) return cudaErrorInvalidValue;
    stream->push(live_task([=] { copy(stream->device, to, from, bytes); }));
    stream->wait();
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  return stream_call("cudaMemcpyAsync", handle,
                     [&](Stream& stream) { return copy_async(stream, to, from, bytes, kind); });
}

cudaError_t cudaMemset(void* at, int value, size_t bytes) {
  return stream_call("cudaMemset", nullptr, [&](Stream& stream) {
    if (const cudaError_t error = refuse_unsafe()) return error;
    return set_async(stream, at, value, bytes);
  });
}

cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t handle) {
  return stream_call("cudaMemsetAsync", handle,
                     [&](Stream& stream) { return set_async(stream, at, value, bytes); });
}

}  // extern "C"
