// From a mesh of ranks (data, tensor, pipeline, expert parallel) and how a tensor lies on it, to
// the shard that each rank holds. A convenience: Guard::bind needs shards only, however made.
//
//   gradwarden::Mesh mesh({{"pp", 2}, {"dp", 4}, {"tp", 2}});   // rank = (pp * 4 + dp) * 2 + tp
//   auto shard = mesh.shard({.name = "layer0.up", .shape = {4096, 1024},
//                            .placements = {on("pp", {0}), split("tp", 0)}},
//                           rank, data, gradwarden::DType::kBFloat16);
//   if (shard) shards.push_back(*shard);
#ifndef GRADWARDEN_MESH_H_
#define GRADWARDEN_MESH_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gradwarden/export.h"
#include "gradwarden/tensor.h"

namespace gradwarden {

struct MeshAxis {
  std::string name;
  std::uint32_t size = 1;
};

// What one axis of the mesh does to a tensor. An axis without a placement holds replicas.
struct Placement {
  enum class Kind : std::uint8_t { kSplit, kSplitFlat, kOn };
  std::string axis;
  Kind kind = Kind::kSplit;
  std::uint32_t dimension = 0;         // of kSplit
  std::vector<std::uint32_t> ranks{};  // of kOn: coordinates on the axis
};

// Dimension `dimension` is cut into one piece per rank of the axis, each ceil(extent / size) long,
// so that the last ones may be shorter or empty: what torch.chunk and DTensor do.
GRADWARDEN_API Placement split(std::string axis, std::uint32_t dimension);
// What the other placements leave is cut, in row-major order, into equal flat ranges, the last ones
// shorter or empty: ZeRO, FSDP with flat parameters. At most once, and last.
GRADWARDEN_API Placement split_flat(std::string axis);
// Only these coordinates of the axis hold it: a pipeline stage, the owner of an expert; two stages
// for embeddings that are tied across them.
GRADWARDEN_API Placement on(std::string axis, std::vector<std::uint32_t> ranks);

struct MeshTensor {
  std::string name = {};
  std::string group = {};
  std::vector<std::uint64_t> shape = {};
  std::vector<Placement> placements = {};  // applied in order: a dimension may be split twice
  bool identical = false;                  // as TensorShard::identical
};

// Immutable; any thread.
class GRADWARDEN_API Mesh {
 public:
  // The last axis varies fastest with the rank. Throws Error on an empty or repeated name or a
  // size of 0.
  explicit Mesh(std::vector<MeshAxis> axes);

  std::uint32_t size() const noexcept { return size_; }
  // The coordinate of `rank` on an axis. Throws Error if there is no such axis or rank.
  std::uint32_t coordinate(std::uint32_t rank, std::string_view axis) const;

  // On how many ranks each element of the tensor is.
  std::uint32_t replicas(const MeshTensor& tensor) const;

  // The shard of `rank`, with `replicas` set, so that bind checks it; nothing where the rank holds
  // none. `data` is the rank's own contiguous memory. Throws Error on a placement that names no
  // axis or dimension, or an axis twice.
  std::optional<TensorShard> shard(const MeshTensor& tensor, std::uint32_t rank, void* data,
                                   DType dtype) const;

 private:
  std::size_t index_of(std::string_view axis) const;
  void check(const MeshTensor& tensor) const;

  std::vector<MeshAxis> axes_;
  std::uint32_t size_ = 1;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_MESH_H_
