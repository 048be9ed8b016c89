#include "gradwarden/tensor.h"

#include <algorithm>

#include "kernels/numerics/statistics.h"

namespace gradwarden {

static_assert(static_cast<int>(DType::kFloat64) == static_cast<int>(kernels::DType::kFloat64));
static_assert(static_cast<int>(DType::kFloat32) == static_cast<int>(kernels::DType::kFloat32));
static_assert(static_cast<int>(DType::kBFloat16) == static_cast<int>(kernels::DType::kBFloat16));
static_assert(static_cast<int>(DType::kFloat16) == static_cast<int>(kernels::DType::kFloat16));

std::uint64_t dtype_bytes(DType dtype) {
  return kernels::dtype_bytes(static_cast<kernels::DType>(dtype));
}

std::vector<TensorShard> flat_shards(std::span<const FlatTensor> tensors, std::uint64_t begin,
                                     std::uint64_t count, void* data, DType dtype) {
  std::vector<TensorShard> shards;
  const std::uint64_t end = begin + count;
  std::uint64_t tensor_begin = 0;
  for (const FlatTensor& tensor : tensors) {
    const std::uint64_t tensor_end = tensor_begin + tensor.count;
    const std::uint64_t from = std::max(begin, tensor_begin);
    const std::uint64_t to = std::min(end, tensor_end);
    if (from < to) {
      auto* first = static_cast<char*>(data) + (from - begin) * dtype_bytes(dtype);
      shards.push_back({.name = tensor.name,
                        .group = tensor.group,
                        .data = first,
                        .count = to - from,
                        .dtype = dtype,
                        .total_count = tensor.count,
                        .offset = from - tensor_begin});
    }
    tensor_begin = tensor_end;
  }
  return shards;
}

TensorShard box_shard(std::string name, std::string group, std::vector<std::uint64_t> shape,
                      std::vector<std::uint64_t> start, std::vector<std::uint64_t> extent,
                      void* data, DType dtype) {
  TensorShard shard;
  shard.name = std::move(name);
  shard.group = std::move(group);
  shard.data = data;
  shard.count = 1;
  for (const std::uint64_t size : extent) shard.count *= size;
  shard.dtype = dtype;
  shard.shape = std::move(shape);
  shard.start = std::move(start);
  shard.extent = std::move(extent);
  return shard;
}

}  // namespace gradwarden
