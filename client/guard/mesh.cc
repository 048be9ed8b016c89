#include "gradwarden/mesh.h"

#include <algorithm>
#include <limits>

#include "gradwarden/error.h"

namespace gradwarden {
namespace {

// Piece `index` of `extent` elements in `parts` pieces.
struct Range {
  std::uint64_t begin = 0;
  std::uint64_t count = 0;
};

Range piece_of(std::uint64_t extent, std::uint32_t parts, std::uint32_t index) {
  const std::uint64_t length = extent / parts + (extent % parts != 0 ? 1 : 0);
  const std::uint64_t begin = std::min(extent, length * index);
  return {begin, std::min(length, extent - begin)};
}

std::uint64_t product(const std::vector<std::uint64_t>& extents) {
  std::uint64_t result = 1;
  for (const std::uint64_t extent : extents) result *= extent;
  return result;
}

bool holds(const Placement& placement, std::uint32_t coordinate) {
  return placement.kind != Placement::Kind::kOn ||
         std::find(placement.ranks.begin(), placement.ranks.end(), coordinate) !=
             placement.ranks.end();
}

void require(bool good, const MeshTensor& tensor, const std::string& message) {
  if (!good) throw Error("mesh: tensor \"" + tensor.name + "\": " + message);
}

}  // namespace

Placement split(std::string axis, std::uint32_t dimension) {
  return {std::move(axis), Placement::Kind::kSplit, dimension, {}};
}

Placement split_flat(std::string axis) {
  return {std::move(axis), Placement::Kind::kSplitFlat, 0, {}};
}

Placement on(std::string axis, std::vector<std::uint32_t> ranks) {
  return {std::move(axis), Placement::Kind::kOn, 0, std::move(ranks)};
}

Mesh::Mesh(std::vector<MeshAxis> axes) : axes_(std::move(axes)) {
  std::uint64_t size = 1;
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    const MeshAxis& axis = axes_[i];
    if (axis.name.empty()) throw Error("mesh: an axis has an empty name; give each a name");
    if (axis.size == 0) throw Error("mesh: axis \"" + axis.name + "\" has size 0; allowed: 1 up");
    for (std::size_t j = 0; j < i; ++j) {
      if (axes_[j].name == axis.name)
        throw Error("mesh: two axes are called \"" + axis.name + "\"; give each its own name");
    }
    size *= axis.size;
    if (size > std::numeric_limits<std::int32_t>::max())
      throw Error("mesh: more ranks than a communicator can have; check the sizes of its axes");
  }
  size_ = static_cast<std::uint32_t>(size);
}

std::size_t Mesh::index_of(std::string_view axis) const {
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (axes_[i].name == axis) return i;
  }
  std::string names;
  for (const MeshAxis& known : axes_) names += " \"" + known.name + "\"";
  throw Error("mesh: there is no axis \"" + std::string(axis) + "\"; its axes are" + names);
}

std::uint32_t Mesh::coordinate(std::uint32_t rank, std::string_view axis) const {
  if (rank >= size_) {
    throw Error("mesh: rank " + std::to_string(rank) + " is not among its " +
                std::to_string(size_) + " ranks");
  }
  std::uint32_t inner = 1;
  for (std::size_t i = index_of(axis) + 1; i < axes_.size(); ++i) inner *= axes_[i].size;
  return rank / inner % axes_[index_of(axis)].size;
}

void Mesh::check(const MeshTensor& tensor) const {
  for (std::size_t i = 0; i < tensor.placements.size(); ++i) {
    const Placement& placement = tensor.placements[i];
    const std::uint32_t size = axes_[index_of(placement.axis)].size;
    for (std::size_t j = 0; j < i; ++j) {
      require(tensor.placements[j].axis != placement.axis, tensor,
              "axis \"" + placement.axis + "\" is placed twice; place each once");
    }
    switch (placement.kind) {
      case Placement::Kind::kSplit:
        require(placement.dimension < tensor.shape.size(), tensor,
                "split along dimension " + std::to_string(placement.dimension) +
                    ", but its shape has " + std::to_string(tensor.shape.size()));
        break;
      case Placement::Kind::kSplitFlat:
        require(i + 1 == tensor.placements.size(), tensor,
                "split_flat cuts what the others leave; make it the last placement");
        break;
      case Placement::Kind::kOn:
        require(!placement.ranks.empty(), tensor,
                "on(\"" + placement.axis + "\", ...) names no coordinate");
        for (const std::uint32_t rank : placement.ranks) {
          require(rank < size, tensor,
                  "coordinate " + std::to_string(rank) + " of axis \"" + placement.axis +
                      "\" is beyond its size " + std::to_string(size));
          require(std::count(placement.ranks.begin(), placement.ranks.end(), rank) == 1, tensor,
                  "coordinate " + std::to_string(rank) + " is named twice");
        }
    }
  }
}

std::uint32_t Mesh::replicas(const MeshTensor& tensor) const {
  check(tensor);
  std::uint32_t replicas = size_;
  for (const Placement& placement : tensor.placements) {
    replicas /= axes_[index_of(placement.axis)].size;
    if (placement.kind == Placement::Kind::kOn)
      replicas *= static_cast<std::uint32_t>(placement.ranks.size());
  }
  return replicas;
}

std::optional<TensorShard> Mesh::shard(const MeshTensor& tensor, std::uint32_t rank, void* data,
                                       DType dtype) const {
  check(tensor);
  TensorShard shard =
      box_shard(tensor.name, tensor.group, tensor.shape,
                std::vector<std::uint64_t>(tensor.shape.size(), 0), tensor.shape, data, dtype);
  for (const Placement& placement : tensor.placements) {
    const std::uint32_t here = coordinate(rank, placement.axis);
    const std::uint32_t size = axes_[index_of(placement.axis)].size;
    if (!holds(placement, here)) return std::nullopt;
    if (placement.kind == Placement::Kind::kSplit) {
      const Range range = piece_of(shard.extent[placement.dimension], size, here);
      shard.start[placement.dimension] += range.begin;
      shard.extent[placement.dimension] = range.count;
      shard.count = product(shard.extent);
    } else if (placement.kind == Placement::Kind::kSplitFlat) {
      const Range range = piece_of(product(shard.extent), size, here);
      shard.offset = range.begin;
      shard.count = range.count;
    }
  }
  shard.replicas = replicas(tensor);
  shard.identical = tensor.identical;
  if (shard.count == 0) return std::nullopt;
  return shard;
}

}  // namespace gradwarden
