#include "client/guard/cuda/memory.h"

#include <cstring>

namespace gradwarden::guard {

PinnedMemory::PinnedMemory(std::size_t bytes) {
  if (bytes == 0) return;
  require(cudaHostAlloc(&host_, bytes, cudaHostAllocMapped | cudaHostAllocPortable),
          "allocating pinned memory");
  std::memset(host_, 0, bytes);
  const cudaError_t mapped = cudaHostGetDevicePointer(&device_, host_, 0);
  if (mapped != cudaSuccess) {
    cudaFreeHost(std::exchange(host_, nullptr));
    require(mapped, "mapping pinned memory");
  }
}

}  // namespace gradwarden::guard
