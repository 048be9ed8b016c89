#include "kernels/cpu/scale.h"

#include <algorithm>
#include <cstddef>

#include "kernels/cpu/float_environment.h"
#include "kernels/cpu/scale_simd.h"

namespace gradwarden::kernels {
namespace {

// Enough parts per thread to even out a busy core. Few, because each part looks for its first
// tensor from the front of the list, which saves a table.
constexpr std::uint64_t kPartsPerThread = 16;
constexpr std::uint64_t kMinPart = std::uint64_t{16}
                                   << 10;  // elements; below it waking a thread costs more

struct ScaleContext {
  std::span<const Tensor> tensors;
  double factor;
  std::uint64_t total;
  std::uint64_t part;  // elements
};

// Scales the elements [part * index, part * (index + 1)) of all tensors laid end to end. Elements
// are independent, so the cuts do not matter to the result.
void scale_part(void* context, std::uint64_t index) noexcept {
  const auto& run = *static_cast<const ScaleContext*>(context);
  const DefaultFloatEnvironment environment;
  const std::uint64_t begin = index * run.part;
  const std::uint64_t end = std::min(begin + run.part, run.total);
  std::uint64_t start = 0;  // of the tensor, laid end to end
  for (const Tensor& tensor : run.tensors) {
    if (start >= end) return;
    const std::uint64_t stop = start + tensor.count;
    if (stop > begin) {
      const std::uint64_t first = std::max(begin, start) - start;
      const std::uint64_t count = std::min(end, stop) - start - first;
      auto* data = static_cast<std::byte*>(tensor.data) + first * dtype_bytes(tensor.dtype);
      simd::scale_elements(data, count, tensor.dtype, run.factor);
    }
    start = stop;
  }
}

}  // namespace

void scale(std::span<const Tensor> tensors, double factor, ParallelFor& threads) noexcept {
  if (factor == 1.0) return;
  std::uint64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.count;
  if (total == 0) return;
  const std::uint64_t wanted = kPartsPerThread * threads.threads();
  const std::uint64_t part = std::max((total + wanted - 1) / wanted, kMinPart);
  ScaleContext context{tensors, factor, total, part};
  threads.run((total + part - 1) / part, scale_part, &context);
}

}  // namespace gradwarden::kernels
