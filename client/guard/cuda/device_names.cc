#include "gradwarden/device_collective.h"

namespace gradwarden {

std::string_view to_string(DeviceStatus status) {
  switch (status) {
    case DeviceStatus::kOk:
      return "ok";
    case DeviceStatus::kNotBound:
      return "not_bound";
    case DeviceStatus::kCudaError:
      return "cuda_error";
    case DeviceStatus::kCollectiveError:
      return "collective_error";
    case DeviceStatus::kCollectiveTimeout:
      return "collective_timeout";
    case DeviceStatus::kTimeout:
      return "timeout";
    case DeviceStatus::kCapturing:
      return "capturing";
    case DeviceStatus::kInvalidArgument:
      return "invalid_argument";
    case DeviceStatus::kBusy:
      return "busy";
  }
  return "unknown";
}

}  // namespace gradwarden
