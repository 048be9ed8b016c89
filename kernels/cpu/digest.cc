#include "kernels/cpu/digest.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/element.h"
#include "kernels/numerics/digest.h"

namespace gradwarden::kernels {
namespace {

constexpr std::uint64_t kChunk = 1 << 16;

// Elements that follow one another in the whole tensor too.
template <DType kType>
std::uint64_t digest_row(const std::byte* data, std::uint64_t index, std::uint64_t count) {
  using Bits = typename Element<kType>::Bits;
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, data + i * sizeof bits, sizeof bits);
    sum += element_digest(index + i, bits);
  }
  return sum;
}

// How many elements from `i` on lie one after another in the whole tensor.
std::uint64_t row_length(const DigestTensor& tensor, std::uint64_t i, std::uint64_t end) {
  if (tensor.map == nullptr) return end - i;
  const IndexMap& map = *tensor.map;
  const std::uint32_t last = map.dimensions - 1;
  if (map.stride[last] != 1) return 1;
  return std::min(end - i, map.extent[last] - (map.first + i) % map.extent[last]);
}

template <DType kType>
std::uint64_t digest_chunk(const DigestTensor& tensor, std::uint64_t first, std::uint64_t count) {
  const auto* data = static_cast<const std::byte*>(tensor.data);
  std::uint64_t sum = 0;
  for (std::uint64_t i = first; i < first + count;) {
    const std::uint64_t length = row_length(tensor, i, first + count);
    const std::uint64_t index =
        tensor.map != nullptr ? whole_index(*tensor.map, i) : tensor.offset + i;
    sum += digest_row<kType>(data + i * dtype_bytes(kType), index, length);
    i += length;
  }
  return sum;
}

}  // namespace

void DigestKernel::plan(std::span<const DigestTensor> tensors) {
  tensors_.assign(tensors.begin(), tensors.end());
  chunks_.clear();
  for (std::size_t t = 0; t < tensors_.size(); ++t) {
    for (std::uint64_t first = 0; first < tensors_[t].count; first += kChunk) {
      chunks_.push_back({t, first, std::min(tensors_[t].count - first, kChunk)});
    }
  }
  partials_.assign(chunks_.size(), 0);
}

void DigestKernel::run_chunk(void* context, std::uint64_t task) noexcept {
  auto& self = *static_cast<DigestKernel*>(context);
  const Chunk& chunk = self.chunks_[task];
  const DigestTensor& tensor = self.tensors_[chunk.tensor];
  self.partials_[task] = with_dtype(tensor.dtype, [&]<DType kType>() {
    return digest_chunk<kType>(tensor, chunk.first, chunk.count);
  });
}

void DigestKernel::run(std::span<std::uint64_t> out) noexcept {
  threads_.run(chunks_.size(), run_chunk, this);
  std::fill(out.begin(), out.end(), 0);
  for (std::size_t i = 0; i < chunks_.size(); ++i) out[chunks_[i].tensor] += partials_[i];
}

}  // namespace gradwarden::kernels
