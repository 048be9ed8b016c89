// Memory that the device path allocates at bind and frees with the guard.
//
// Owners of one allocation each; not for the step path. Errors throw Error.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_MEMORY_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_MEMORY_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "gradwarden/error.h"

namespace gradwarden::guard {

inline std::string describe(cudaError_t error, const char* doing) {
  return std::string(doing) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error);
}

// For bind, where throwing is allowed.
inline void require(cudaError_t error, const char* doing) {
  if (error != cudaSuccess) throw Error(describe(error, doing));
}

class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes) {
    if (bytes != 0) require(cudaMalloc(&data_, bytes), "allocating device memory");
  }
  ~DeviceMemory() {
    if (data_ != nullptr) cudaFree(data_);
  }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

// A copy on the device; `table` lives until the stream has been waited for.
template <typename T>
DeviceMemory upload_table(const std::vector<T>& table, cudaStream_t stream) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(table));
  DeviceMemory memory(bytes.size());
  if (!bytes.empty()) {
    require(cudaMemcpyAsync(memory.as<void>(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice,
                            stream),
            "copying the guard's tables to the device");
  }
  return memory;
}

// Host memory that the device reaches, zeroed.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(std::size_t bytes);
  ~PinnedMemory() {
    if (host_ != nullptr) cudaFreeHost(host_);
  }
  PinnedMemory(PinnedMemory&& other) noexcept
      : host_(std::exchange(other.host_, nullptr)), device_(other.device_) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(host_, other.host_);
    std::swap(device_, other.device_);
    return *this;
  }

  template <typename T>
  T* host() const {
    return static_cast<T*>(host_);
  }
  template <typename T>
  T* device() const {
    return static_cast<T*>(device_);
  }

 private:
  void* host_ = nullptr;
  void* device_ = nullptr;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_MEMORY_H_
