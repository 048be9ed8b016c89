#include "client/guard/cuda/grids.h"

#include <algorithm>

#include "client/guard/cuda/memory.h"
#include "kernels/cuda/kernels.h"

namespace gradwarden::guard {
namespace {

namespace device = kernels::cuda;

template <typename Kernel>
unsigned resident_blocks(Kernel kernel, int multiprocessors) {
  int each = 0;
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(
              &each, reinterpret_cast<const void*>(kernel), device::kBlockThreads, 0),
          "asking how many blocks fit the device");
  return static_cast<unsigned>(std::max(1, each) * multiprocessors);
}

unsigned at_most(std::uint64_t work, unsigned blocks) {
  return static_cast<unsigned>(std::clamp<std::uint64_t>(work, 1, blocks));
}

}  // namespace

Grids grids_for(const device::Plan& plan) {
  int current = 0;
  int multiprocessors = 0;
  require(cudaGetDevice(&current), "asking for the current device");
  require(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, current),
          "asking for the number of multiprocessors");
  const auto statistics = device::find_statistics_kernel(device::NormType::kTwo);
  Grids grids;
  grids.statistics = at_most(plan.chunk_count, resident_blocks(statistics, multiprocessors));
  grids.fold =
      at_most(plan.tensor_count, resident_blocks(device::find_fold_kernel(), multiprocessors));
  grids.apply =
      at_most(plan.chunk_count, resident_blocks(device::find_apply_kernel(), multiprocessors));
  grids.digest =
      at_most(plan.chunk_count, resident_blocks(device::find_digest_kernel(), multiprocessors));
  return grids;
}

}  // namespace gradwarden::guard
