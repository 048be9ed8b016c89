// The guard of one rank's gradients in GPU memory, as a Python trainer uses it: beside the guard of
// host memory, in its place once it is bound, with the same reporter.
//
// The trainer's thread alone, with the GPU current that the tensors are on. Knows no Python: the
// exchange on the device is a function, or the trainer's own NCCL communicator.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_DEVICE_RANK_GUARD_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_DEVICE_RANK_GUARD_H_

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/python/core/finished_steps.h"
#include "gradwarden/device_guard.h"

namespace gradwarden::python {

class DeviceRankGuard {
 public:
  // Enqueues on `stream` the gathering of device memory; false or a throw: it failed.
  using Gather =
      std::function<bool(const void* send, void* receive, std::size_t bytes, cudaStream_t stream)>;

  // `host` is the exchange for bind; with an `ncclComm_t` other than null that communicator is
  // borrowed, with the ranks in the same order, else `gather` is called. A single rank needs
  // neither. All outlive this. Throws Error.
  DeviceRankGuard(const DeviceGuardOptions& options, Collective& host, Gather gather,
                  ncclComm_t communicator, cudaStream_t stream, StepSink* next);
  ~DeviceRankGuard();
  DeviceRankGuard(const DeviceRankGuard&) = delete;
  DeviceRankGuard& operator=(const DeviceRankGuard&) = delete;

  DeviceGuard& guard() { return *guard_; }
  const DeviceGuard& guard() const { return *guard_; }

  // Throws Error where the status is not kOk.
  void check(DeviceStatus status) const;
  // The decision of the last step, and what else is known of it by then. Throws Error.
  Outcome wait(std::uint64_t step);
  std::vector<Outcome> fetch();

 private:
  std::unique_ptr<DeviceCollective> ranks_;
  FinishedSteps finished_;
  std::vector<Outcome> fetched_;  // by wait(), not by fetch() yet
  std::unique_ptr<DeviceGuard> guard_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_DEVICE_RANK_GUARD_H_
