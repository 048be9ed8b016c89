// One-pass statistics of gradients in host memory (CPU-offloaded optimizers, MPI trainers, tests).
//
// SIMD by Highway with run-time dispatch; threads by ParallelFor. Results are bit-identical for
// every SIMD width and thread count: tensors are cut into chunks of a fixed number of elements,
// each chunk has a fixed lane structure, and chunks fold in order. Every element is read from
// memory once.
//
// Accuracy: elements accumulate in float64, where squares of every finite fp32, bf16 and fp16
// value, subnormals included, neither overflow nor underflow; the L2 norm agrees with a float64
// reference to 1e-6 relative and in practice to 1e-13. For fp64 input a power sum beyond float64
// saturates to infinity, and squares below it vanish. The caller's rounding mode and flush-to-zero
// setting change nothing. For p other than 1/2, 1, 2, 3, 4 and infinity bits may differ between
// machines as their libm's pow() does; on one machine they do not.
//
// Threads: one call at a time on one object, and on one ParallelFor.
#ifndef GRADWARDEN_KERNELS_CPU_STATISTICS_H_
#define GRADWARDEN_KERNELS_CPU_STATISTICS_H_

#include <cstdint>
#include <span>

#include "kernels/cpu/parallel_for.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels {

// `count` elements of type `dtype`, contiguous, aligned to nothing in particular (1 byte is
// enough). data may be null when count is 0.
struct ConstTensor {
  const void* data = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::kFloat32;
};

// Writes out[i] for tensors[i]; the spans have equal length. p is > 0 or infinity and is not
// checked here.
class StatisticsKernel {
 public:
  explicit StatisticsKernel(ParallelFor& threads);
  ~StatisticsKernel();
  StatisticsKernel(const StatisticsKernel&) = delete;
  StatisticsKernel& operator=(const StatisticsKernel&) = delete;

  // Builds the table of chunks, the only step that allocates. Called again when the list of sizes
  // or dtypes changes.
  void plan(std::span<const ConstTensor> tensors);

  // Statistics of the planned tensors. `tensors` has the planned counts and dtypes; pointers may
  // differ.
  void run(std::span<const ConstTensor> tensors, double p, std::span<Statistics> out) noexcept;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_STATISTICS_H_
