#include "client/collective/nccl/staging.h"

#include <cstring>

namespace gradwarden::nccl {

Staging::~Staging() {
  if (device_ != nullptr) cudaFree(device_);
  if (host_ != nullptr) cudaFreeHost(host_);
}

cudaError_t Staging::reserve(std::size_t send_bytes, std::size_t receive_bytes) noexcept {
  if (device_ != nullptr && send_bytes <= send_bytes_ && receive_bytes <= receive_bytes_)
    return cudaSuccess;
  if (device_ != nullptr) cudaFree(device_);
  if (host_ != nullptr) cudaFreeHost(host_);
  leave();
  void* device = nullptr;
  void* host = nullptr;
  if (const cudaError_t error = cudaMalloc(&device, send_bytes + receive_bytes)) return error;
  device_ = static_cast<unsigned char*>(device);
  const cudaError_t error = cudaHostAlloc(&host, send_bytes + receive_bytes, cudaHostAllocPortable);
  if (error != cudaSuccess) return error;
  host_ = static_cast<unsigned char*>(host);
  send_bytes_ = send_bytes;
  receive_bytes_ = receive_bytes;
  return cudaSuccess;
}

cudaError_t Staging::put(const void* from, std::size_t bytes, cudaStream_t stream) noexcept {
  if (bytes == 0) return cudaSuccess;
  std::memcpy(host_, from, bytes);
  return cudaMemcpyAsync(device_, host_, bytes, cudaMemcpyHostToDevice, stream);
}

cudaError_t Staging::fetch(std::size_t bytes, cudaStream_t stream) noexcept {
  if (bytes == 0) return cudaSuccess;
  return cudaMemcpyAsync(host_ + send_bytes_, device_ + send_bytes_, bytes, cudaMemcpyDeviceToHost,
                         stream);
}

void Staging::leave() noexcept {
  device_ = nullptr;
  host_ = nullptr;
  send_bytes_ = receive_bytes_ = 0;
}

}  // namespace gradwarden::nccl
