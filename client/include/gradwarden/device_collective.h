// How ranks whose gradients lie in GPU memory exchange their summaries: on the device, in the
// order of a CUDA stream.
//
// Handles of CUDA and NCCL are declared here as their own headers declare them, so that a program
// needs neither header to include this one.
#ifndef GRADWARDEN_DEVICE_COLLECTIVE_H_
#define GRADWARDEN_DEVICE_COLLECTIVE_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "gradwarden/collective.h"
#include "gradwarden/export.h"

typedef struct CUstream_st* cudaStream_t;
typedef struct ncclComm* ncclComm_t;

namespace gradwarden {

// What a call on the step path came to. Nothing there throws, waits or aborts the process.
enum class DeviceStatus : std::uint8_t {
  kOk = 0,
  kNotBound = 1,           // call bind() first
  kCudaError = 2,          // a CUDA call failed; the context may be unusable
  kCollectiveError = 3,    // the exchange between the ranks failed
  kCollectiveTimeout = 4,  // the exchange did not end within its timeout
  kTimeout = 5,            // wait(): the decision did not come in time
  kCapturing = 6,          // not possible while the stream is being captured
  kInvalidArgument = 7,    // for example another number of pointers than were bound
  kBusy = 8,               // update(): too many copies under way; try again later
};

// Lower-case words for logs: "ok", "cuda_error".
GRADWARDEN_API std::string_view to_string(DeviceStatus status);

// One per rank. The calls of Collective are for bind, where waiting is allowed; they and
// enqueue_all_gather come from one thread. The rest may be called from any thread.
class GRADWARDEN_API DeviceCollective : public Collective {
 public:
  // Enqueues on `stream` the gathering of `bytes` bytes (a multiple of 8) from every rank into
  // `receive`, in rank order; both are device memory. Never waits. Can be captured.
  virtual DeviceStatus enqueue_all_gather(const void* send, void* receive, std::size_t bytes,
                                          cudaStream_t stream) noexcept = 0;
  // What is known of the exchanges under way. Makes no CUDA call and never waits.
  virtual DeviceStatus poll() noexcept = 0;
  // A started exchange has not ended for `elapsed`. An own communicator is aborted when that is
  // more than its timeout, so that its stream goes on; a borrowed one is left alone.
  virtual DeviceStatus stalled(std::chrono::milliseconds elapsed) noexcept = 0;
};

// A run of one GPU: nothing is exchanged.
class GRADWARDEN_API SingleDevice final : public DeviceCollective {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override;
  DeviceStatus enqueue_all_gather(const void* send, void* receive, std::size_t bytes,
                                  cudaStream_t stream) noexcept override;
  DeviceStatus poll() noexcept override { return DeviceStatus::kOk; }
  DeviceStatus stalled(std::chrono::milliseconds) noexcept override { return DeviceStatus::kOk; }
};

struct NcclUniqueId {
  char bytes[128] = {};
};

struct NcclOptions {
  // After this long a stalled exchange is a kCollectiveTimeout; on an own communicator it is then
  // aborted. At bind the same holds for the exchanges there.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

// Ranks of an NCCL communicator. NCCL is the library that the process has already loaded (or is
// linked with), never a second copy; it is looked up by name and not linked here.
//
// A borrowed communicator is the trainer's: calls on it are made in the trainer's order, on the
// trainer's stream; it is never aborted, destroyed or waited for by us. An own one is made,
// watched, aborted after the timeout and destroyed by us. Two communicators used at the same time
// can deadlock each other unless all ranks order their work alike: prefer the trainer's own.
class GRADWARDEN_API NcclRanks final : public DeviceCollective {
 public:
  // Borrows. `communicator` and `stream`, on which bind exchanges the declarations, outlive this.
  // Throws Error if no NCCL is loaded or the communicator does not answer.
  NcclRanks(ncclComm_t communicator, cudaStream_t stream, const NcclOptions& options = {});
  // An own communicator on the current device, made collectively by `size` ranks, each with the id
  // that one of them got from unique_id(). Throws Error on every failure and after the timeout.
  NcclRanks(const NcclUniqueId& id, int rank, int size, cudaStream_t stream,
            const NcclOptions& options = {});
  static NcclUniqueId unique_id();
  ~NcclRanks() override;
  NcclRanks(const NcclRanks&) = delete;
  NcclRanks& operator=(const NcclRanks&) = delete;

  int rank() const noexcept override;
  int size() const noexcept override;
  // Stages host memory through the device and waits for it, within the timeout.
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override;
  std::string last_error() const override;

  DeviceStatus enqueue_all_gather(const void* send, void* receive, std::size_t bytes,
                                  cudaStream_t stream) noexcept override;
  DeviceStatus poll() noexcept override;
  DeviceStatus stalled(std::chrono::milliseconds elapsed) noexcept override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_DEVICE_COLLECTIVE_H_
