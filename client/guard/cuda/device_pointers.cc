#include "client/guard/cuda/device_pointers.h"

#include <cuda_runtime_api.h>

#include "client/guard/cuda/memory.h"

namespace gradwarden::guard {
namespace {

std::string check_pointer(const TensorShard& shard, int device, const std::string& list) {
  const std::string what = list + ": the data of tensor \"" + shard.name + "\" ";
  cudaPointerAttributes found{};
  if (const cudaError_t error = cudaPointerGetAttributes(&found, shard.data)) {
    return what + "is unknown to CUDA (" + cudaGetErrorString(error) + ")";
  }
  if (found.devicePointer == nullptr) {
    return what + "is host memory that no device reaches; use gradwarden::Guard for host memory";
  }
  if (found.type == cudaMemoryTypeDevice && found.device != device) {
    return what + "is on device " + std::to_string(found.device) + ", the current device is " +
           std::to_string(device) + "; call cudaSetDevice before bind()";
  }
  return {};
}

std::string check_list(std::span<const TensorShard> shards, int device, const std::string& list) {
  for (const TensorShard& shard : shards) {
    if (shard.count == 0 || shard.data == nullptr) continue;  // judged with the other shards' sizes
    std::string problem = check_pointer(shard, device, list);
    if (!problem.empty()) return problem;
  }
  return {};
}

}  // namespace

bool all_given(std::span<const Segment> segments, std::span<void* const> data) {
  for (const Segment& segment : segments) {
    if (data[segment.shard] == nullptr) return false;
  }
  return true;
}

std::string check_device_pointers(const Bindings& bindings) {
  int device = 0;
  if (const cudaError_t error = cudaGetDevice(&device)) {
    return describe(error, "asking for the current device");
  }
  std::string problem = check_list(bindings.gradients, device, "shards");
  if (problem.empty()) problem = check_list(bindings.local, device, "local");
  if (problem.empty()) problem = check_list(bindings.parameters, device, "parameters");
  for (const TensorList& list : bindings.others) {
    if (problem.empty()) problem = check_list(list.shards, device, list.name);
  }
  return problem;
}

}  // namespace gradwarden::guard
