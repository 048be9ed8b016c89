// Digests of tensors in host memory (kernels/numerics/digest.h).
//
// Threads: one call at a time on one object, and on one ParallelFor.
#ifndef GRADWARDEN_KERNELS_CPU_DIGEST_H_
#define GRADWARDEN_KERNELS_CPU_DIGEST_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cpu/parallel_for.h"
#include "kernels/numerics/index_map.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels {

struct DigestTensor {
  const void* data = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::kFloat32;
  std::uint64_t offset = 0;       // flat index, in the whole tensor, of the first element
  const IndexMap* map = nullptr;  // in place of `offset`; outlives the plan
};

class DigestKernel {
 public:
  explicit DigestKernel(ParallelFor& threads) : threads_(threads) {}

  // The only step that allocates.
  void plan(std::span<const DigestTensor> tensors);

  // Where a planned tensor is now.
  void move(std::size_t tensor, const void* data) noexcept { tensors_[tensor].data = data; }

  // Reads the planned tensors; out[i] is that of tensor i.
  void run(std::span<std::uint64_t> out) noexcept;

 private:
  struct Chunk {
    std::size_t tensor;
    std::uint64_t first;
    std::uint64_t count;
  };
  static void run_chunk(void* context, std::uint64_t task) noexcept;

  ParallelFor& threads_;
  std::vector<DigestTensor> tensors_;
  std::vector<Chunk> chunks_;
  std::vector<std::uint64_t> partials_;  // by chunk
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_DIGEST_H_
