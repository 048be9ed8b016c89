// Communicators: the calls of NCCL that are no collectives.
#include <nccl.h>

#include <cstring>
#include <utility>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/group.h"
#include "tests/emulator/runtime/world.h"

namespace gradwarden::emulator {
namespace {

ncclResult_t init_rank(const char* call, ncclComm_t* out, int size, const ncclUniqueId& id,
                       int rank, bool blocking) {
  return nccl_call(call, [&] {
    if (out == nullptr) return ncclInvalidArgument;
    *out = nullptr;
    if (size < 1 || rank < 0 || rank >= size) return ncclInvalidArgument;
    if (Machine::get().sticky(current_device()) != cudaSuccess) return ncclUnhandledCudaError;
    ncclResult_t reason = ncclSuccess;
    auto communicator = join_world(id, size, rank, current_device(), blocking, reason);
    if (communicator == nullptr) return reason;
    *out = communicators().add(communicator);
    if (!blocking) return outcome(*communicator);
    if (wait_in_group(communicator)) return ncclSuccess;
    Machine::get().count_blocking(call);
    return wait_until_complete(*communicator);
  });
}

template <typename Body>
ncclResult_t on_communicator(const char* call, ncclComm_t handle, Body body) {
  return nccl_call(call, [&] {
    const auto communicator = communicators().find(handle);
    if (communicator == nullptr) return ncclInvalidArgument;
    return static_cast<ncclResult_t>(body(communicator));
  });
}

// What was enqueued runs first, as NCCL waits for it too.
void drain(const char* call, Communicator& communicator) {
  Machine::get().count_blocking(call);
  wait_for_collectives(communicator);
}

}  // namespace
}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  return nccl_call("ncclGetVersion", [&] {
    if (version == nullptr) return ncclInvalidArgument;
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
  });
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  return nccl_call("ncclGetUniqueId", [&] {
    static std::atomic<std::uint64_t> last{0};
    if (id == nullptr) return ncclInvalidArgument;
    *id = {};
    const std::uint64_t number = ++last;
    std::memcpy(id->internal, &number, sizeof number);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommInitRank(ncclComm_t* out, int size, ncclUniqueId id, int rank) {
  return init_rank("ncclCommInitRank", out, size, id, rank, true);
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* out, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  const bool blocking = config == nullptr || config->blocking != 0;  // undefined is blocking
  return init_rank("ncclCommInitRankConfig", out, size, id, rank, blocking);
}

ncclResult_t ncclCommInitAll(ncclComm_t* out, int count, const int* devices) {
  return nccl_call("ncclCommInitAll", [&] {
    if (out == nullptr || count < 1) return ncclInvalidArgument;
    ncclUniqueId id;
    if (const ncclResult_t error = ncclGetUniqueId(&id)) return error;
    for (int rank = 0; rank < count; ++rank) {
      const int device = devices == nullptr ? rank : devices[rank];
      if (device < 0 || device >= Machine::get().settings().device_count)
        return ncclInvalidArgument;
      ncclResult_t reason = ncclSuccess;
      auto communicator = join_world(id, count, rank, device, true, reason);
      if (communicator == nullptr) return reason;
      out[rank] = communicators().add(std::move(communicator));
    }
    return ncclSuccess;
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t handle) {
  return on_communicator("ncclCommFinalize", handle, [&](const auto& communicator) {
    if (const ncclResult_t error = readiness(*communicator)) return error;
    start_finalizing(*communicator);
    if (!communicator->blocking) return outcome(*communicator);
    drain("ncclCommFinalize", *communicator);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t handle) {
  return on_communicator("ncclCommDestroy", handle, [&](const auto& communicator) {
    drain("ncclCommDestroy", *communicator);
    communicators().take(handle);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommAbort(ncclComm_t handle) {
  return on_communicator("ncclCommAbort", handle, [&](const auto& communicator) {
    Machine::get().count_blocking("ncclCommAbort");
    abort(*communicator);
    communicators().take(handle);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t* error) {
  return on_communicator("ncclCommGetAsyncError", handle, [&](const auto& communicator) {
    if (error == nullptr) return ncclInvalidArgument;
    *error = poll(*communicator);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommCount(const ncclComm_t handle, int* count) {
  return on_communicator("ncclCommCount", handle, [&](const auto& communicator) {
    if (count == nullptr) return ncclInvalidArgument;
    if (const ncclResult_t error = readiness(*communicator)) return error;
    *count = size_of(*communicator);
    return ncclSuccess;
  });
}

ncclResult_t ncclCommUserRank(const ncclComm_t handle, int* rank) {
  return on_communicator("ncclCommUserRank", handle, [&](const auto& communicator) {
    if (rank == nullptr) return ncclInvalidArgument;
    if (const ncclResult_t error = readiness(*communicator)) return error;
    *rank = communicator->rank;
    return ncclSuccess;
  });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t handle, int* device) {
  return on_communicator("ncclCommCuDevice", handle, [&](const auto& communicator) {
    if (device == nullptr) return ncclInvalidArgument;
    if (const ncclResult_t error = readiness(*communicator)) return error;
    *device = communicator->device;
    return ncclSuccess;
  });
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error";
    case ncclSystemError:
      return "unhandled system error";
    case ncclInternalError:
      return "internal error";
    case ncclInvalidArgument:
      return "invalid argument";
    case ncclInvalidUsage:
      return "invalid usage";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "in progress";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t handle) {
  thread_local std::string message;
  const auto communicator = communicators().find(handle);
  message = communicator == nullptr ? "" : last_message(*communicator);
  return message.c_str();
}

}  // extern "C"
