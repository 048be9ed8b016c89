// The guard of GPU memory behind a C interface, for gpu_vs_torch.py.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "gradwarden/device_guard.h"

using gradwarden::DeviceGuard;
using gradwarden::DeviceStatus;

#define GRADWARDEN_BENCH_API extern "C" __attribute__((visibility("default")))

// Null if it fails; the reason goes to stderr. Gradients divide by *loss_scale_at (null: by
// nothing).
GRADWARDEN_BENCH_API DeviceGuard* gwg_new(void* const* data, const std::uint64_t* counts,
                                          std::uint64_t tensors, int dtype, double max_norm,
                                          cudaStream_t stream) {
  try {
    auto guard = std::make_unique<DeviceGuard>(
        gradwarden::DeviceGuardOptions{.guard = {.max_norm = max_norm}});
    std::vector<gradwarden::TensorShard> shards(tensors);
    for (std::uint64_t i = 0; i < tensors; ++i) {
      shards[i].name = "tensor" + std::to_string(i);
      shards[i].data = data[i];
      shards[i].count = counts[i];
      shards[i].dtype = static_cast<gradwarden::DType>(dtype);
    }
    guard->bind(shards, {}, stream);
    return guard.release();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gwg_new: %s\n", error.what());
    return nullptr;
  }
}

// 0 if the step is enqueued.
GRADWARDEN_BENCH_API int gwg_step(DeviceGuard* guard, const float* loss_scale_at,
                                  cudaStream_t stream) {
  return static_cast<int>(guard->step({.step = 1, .loss_scale_at = loss_scale_at}, stream));
}

// The norm of the last step; waits for it.
GRADWARDEN_BENCH_API double gwg_norm(DeviceGuard* guard) {
  gradwarden::StepOutcome outcome;
  return guard->wait(&outcome) == DeviceStatus::kOk ? outcome.grad_norm : -1;
}

GRADWARDEN_BENCH_API void gwg_free(DeviceGuard* guard) { delete guard; }
