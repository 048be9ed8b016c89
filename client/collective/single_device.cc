#include <cstring>

#include "gradwarden/device_collective.h"

namespace gradwarden {

bool SingleDevice::all_gather(const void* send, void* receive, std::size_t bytes) noexcept {
  if (bytes != 0) std::memcpy(receive, send, bytes);
  return true;
}

// The guard of one rank reads its own summary in place.
DeviceStatus SingleDevice::enqueue_all_gather(const void*, void*, std::size_t,
                                              cudaStream_t) noexcept {
  return DeviceStatus::kOk;
}

}  // namespace gradwarden
