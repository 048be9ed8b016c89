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

// A part of one tensor that this rank holds, contiguous in memory. A tensor is known by its name,
// which is the same on every rank that holds part of it; group, dtype, total_count and shape must
// then be the same too.
//
// Flat form: elements [offset, offset + count) of the whole tensor.
// Box form (shape is not empty): the rank's memory is the box [start, start + extent) of the whole
// tensor, in row-major order, or, where that box is cut again (ZeRO over tensor parallel), the
// elements [offset, offset + count) of it. box_shard() and gradwarden/mesh.h fill it in.
struct TensorShard {
  std::string name;
  std::string group;  // tensors of a group share statistics, usually a layer; empty: the name
  void* data =
      nullptr;  // host memory, any alignment; may be null if count is 0; must outlive the binding
  std::uint64_t count = 0;  // elements in this shard
  DType dtype = DType::kFloat32;
  std::uint64_t total_count =
      0;                     // elements of the whole tensor; 0: `count`, the tensor is not sharded
  std::uint64_t offset = 0;  // of the first element, in the whole tensor or in the box
  std::vector<std::uint64_t> shape = {};   // of the whole tensor, 1 to 8 dimensions; empty: flat
  std::vector<std::uint64_t> start = {};   // of the box, by dimension; empty: 0 in each
  std::vector<std::uint64_t> extent = {};  // of the box, by dimension; empty: shape
  // On how many ranks each of these elements is present. 0: bind derives it; else bind checks it.
  std::uint32_t replicas = 0;
  // The replicas promise equal bits, as after an all-reduce: an audit then compares them exactly.
  bool identical = false;
};

// A whole box: count is the number of its elements.
GRADWARDEN_API TensorShard box_shard(std::string name, std::string group,
                                     std::vector<std::uint64_t> shape,
                                     std::vector<std::uint64_t> start,
                                     std::vector<std::uint64_t> extent, void* data, DType dtype);

// A named list of tensors beside the gradients: updates, moments of an optimizer.
struct TensorList {
  std::string name;
  std::span<const TensorShard> shards;
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
