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
// Elements; the last parts, which come first, are to lie in the cache from end to end.
constexpr std::uint64_t kMaxPart = std::uint64_t{1} << 20;

struct ScaleContext {
  std::span<const Tensor> tensors;
  std::span<const Scaling> scalings;  // one for each tensor, or one for all
  std::uint64_t total;
  std::uint64_t part;  // elements
  std::uint64_t parts;
};

bool is_nothing(const Scaling& scaling) { return scaling.factor == 1.0 && !(scaling.limit > 0); }

const Scaling& scaling_of(const ScaleContext& run, std::size_t tensor) {
  return run.scalings[run.scalings.size() == 1 ? 0 : tensor];
}

// Scales the elements [part * place, part * (place + 1)) of all tensors laid end to end, where
// place counts from the last part: what was read last may still be in the cache. Elements are
// independent, so neither cuts nor order matter to the result.
void scale_part(void* context, std::uint64_t index) noexcept {
  const auto& run = *static_cast<const ScaleContext*>(context);
  const DefaultFloatEnvironment environment;
  const std::uint64_t begin = (run.parts - 1 - index) * run.part;
  const std::uint64_t end = std::min(begin + run.part, run.total);
  std::uint64_t start = 0;  // of the tensor, laid end to end
  for (std::size_t i = 0; i < run.tensors.size(); ++i) {
    if (start >= end) return;
    const Tensor& tensor = run.tensors[i];
    const Scaling& scaling = scaling_of(run, i);
    const std::uint64_t stop = start + tensor.count;
    if (stop > begin && !is_nothing(scaling)) {
      const std::uint64_t first = std::max(begin, start) - start;
      const std::uint64_t count = std::min(end, stop) - start - first;
      auto* data = static_cast<std::byte*>(tensor.data) + first * dtype_bytes(tensor.dtype);
      simd::scale_elements(data, count, tensor.dtype, scaling);
    }
    start = stop;
  }
}

}  // namespace

void scale(std::span<const Tensor> tensors, std::span<const Scaling> scalings,
           ParallelFor& threads) noexcept {
  if (std::all_of(scalings.begin(), scalings.end(), is_nothing)) return;
  std::uint64_t total = 0;
  for (const Tensor& tensor : tensors) total += tensor.count;
  if (total == 0) return;
  const std::uint64_t wanted = kPartsPerThread * threads.threads();
  const std::uint64_t part = std::clamp((total + wanted - 1) / wanted, kMinPart, kMaxPart);
  const std::uint64_t parts = (total + part - 1) / part;
  ScaleContext context{tensors, scalings, total, part, parts};
  threads.run(parts, scale_part, &context);
}

void scale(std::span<const Tensor> tensors, double factor, ParallelFor& threads) noexcept {
  const Scaling scaling{factor, 0};
  scale(tensors, {&scaling, 1}, threads);
}

}  // namespace gradwarden::kernels
