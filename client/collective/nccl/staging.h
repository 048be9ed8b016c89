// Carries host memory through the device for an exchange at bind.
//
// Grows and is kept; used by one thread. After leave() the old memory is given up, not freed,
// because an exchange that never ended may still write there.
#ifndef GRADWARDEN_CLIENT_COLLECTIVE_NCCL_STAGING_H_
#define GRADWARDEN_CLIENT_COLLECTIVE_NCCL_STAGING_H_

#include <cuda_runtime_api.h>

#include <cstddef>

namespace gradwarden::nccl {

class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // Nothing is under way when this is called.
  cudaError_t reserve(std::size_t send_bytes, std::size_t receive_bytes) noexcept;
  // Host to device, enqueued; `from` is copied before this returns.
  cudaError_t put(const void* from, std::size_t bytes, cudaStream_t stream) noexcept;
  // Device to host, enqueued.
  cudaError_t fetch(std::size_t bytes, cudaStream_t stream) noexcept;
  void leave() noexcept;

  const void* device_send() const { return device_; }
  void* device_receive() const { return device_ + send_bytes_; }
  const unsigned char* host_receive() const { return host_ + send_bytes_; }

 private:
  unsigned char* device_ = nullptr;
  unsigned char* host_ = nullptr;
  std::size_t send_bytes_ = 0;
  std::size_t receive_bytes_ = 0;
};

}  // namespace gradwarden::nccl

#endif  // GRADWARDEN_CLIENT_COLLECTIVE_NCCL_STAGING_H_
