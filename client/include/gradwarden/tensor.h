// How a trainer describes its gradients: shards of named tensors in groups.
#ifndef GRADWARDEN_TENSOR_H_
#define GRADWARDEN_TENSOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradwarden/export.h"

namespace gradwarden {

enum class DType : std::uint8_t { kFloat64 = 0, kFloat32 = 1, kBFloat16 = 2, kFloat16 = 3 };

// Bytes of one element.
GRADWARDEN_API std::uint64_t dtype_bytes(DType dtype);

// The contiguous part of one tensor's gradient that this rank holds. A tensor is known by its name,
// which is the same on every rank that holds part of it; group, dtype and total_count must then be
// the same too.
struct TensorShard {
  std::string name;
  std::string group;  // tensors of a group share statistics, usually a layer; empty: the name
  void* data =
      nullptr;  // host memory, any alignment; may be null if count is 0; must outlive the binding
  std::uint64_t count = 0;  // elements in this shard
  DType dtype = DType::kFloat32;
  std::uint64_t total_count =
      0;                     // elements of the whole tensor; 0: `count`, the tensor is not sharded
  std::uint64_t offset = 0;  // flat index, in the whole tensor, of this shard's first element
};

// One whole tensor inside a flat buffer (ZeRO, reduce-scatter trainers).
struct FlatTensor {
  std::string name;
  std::string group;
  std::uint64_t count = 0;
};

// Cuts the flat buffer that `tensors` fill one after another: returns a shard for each tensor that
// overlaps [begin, begin + count), which is what this rank holds at `data`. Elements beyond the
// last tensor are padding and belong to no shard.
GRADWARDEN_API std::vector<TensorShard> flat_shards(std::span<const FlatTensor> tensors,
                                                    std::uint64_t begin, std::uint64_t count,
                                                    void* data, DType dtype);

}  // namespace gradwarden

#endif  // GRADWARDEN_TENSOR_H_
