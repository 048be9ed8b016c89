#include "tests/emulator/runtime/kernel_registry.h"

#include <map>
#include <mutex>

#include "kernels/cuda/kernels.h"

namespace gradwarden::emulator {
namespace {

struct Registry {
  std::mutex mutex;
  std::map<const void*, std::shared_ptr<const RegisteredKernel>> kernels;
};

// Never destroyed: streams may still run when the process ends.
Registry& registry() {
  static Registry& only = *new Registry;
  return only;
}

void add_own_kernels() {
  using kernels::cuda::NormType;
  register_kernel(kernels::cuda::find_statistics_kernel(NormType::kTwo), "statistics");
  register_kernel(kernels::cuda::find_statistics_kernel(NormType::kOne), "statistics");
  register_kernel(kernels::cuda::find_statistics_kernel(NormType::kInfinity), "statistics");
  register_kernel(kernels::cuda::find_statistics_kernel(NormType::kOther), "statistics");
  register_kernel(kernels::cuda::find_fold_kernel(), "fold");
  register_kernel(kernels::cuda::find_decide_kernel(), "decide");
  register_kernel(kernels::cuda::find_apply_kernel(), "apply");
  register_kernel(kernels::cuda::find_digest_kernel(), "digest");
  register_kernel(kernels::cuda::find_seal_kernel(), "seal");
  register_kernel(kernels::cuda::find_deliver_kernel(), "deliver");
}

}  // namespace

void add_kernel(const void* function, RegisteredKernel kernel) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.kernels[function] = std::make_shared<const RegisteredKernel>(std::move(kernel));
}

std::shared_ptr<const RegisteredKernel> find_kernel(const void* function) {
  static const bool own_kernels_known = (add_own_kernels(), true);
  (void)own_kernels_known;
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto it = r.kernels.find(function);
  return it == r.kernels.end() ? nullptr : it->second;
}

}  // namespace gradwarden::emulator
