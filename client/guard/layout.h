// The geometry of sharding: boxes of a tensor's index space, and which ranks hold which elements.
// Pure functions of sizes; no memory is read.
#ifndef GRADWARDEN_CLIENT_GUARD_LAYOUT_H_
#define GRADWARDEN_CLIENT_GUARD_LAYOUT_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "kernels/numerics/index_map.h"

namespace gradwarden::guard {

inline constexpr std::uint32_t kMaxDimensions = kernels::kMaxDimensions;
using Extents = std::array<std::uint64_t, kMaxDimensions>;

// The elements whose coordinate d is in [begin[d], end[d]) for each dimension. Unused dimensions
// have extent 1.
struct Box {
  std::uint32_t dimensions = 0;
  Extents begin{};
  Extents end{};

  std::uint64_t extent(std::uint32_t d) const { return end[d] - begin[d]; }
  std::uint64_t size() const;
};

// How a shard lies in its tensor: `count` elements, from `offset` on, of the row-major order of a
// box. A flat shard is one of the box that is the whole tensor.
struct ShardLayout {
  Box whole;
  Box box;
  std::uint64_t offset = 0;
  std::uint64_t count = 0;
};

// The shard as disjoint boxes: at most 2 * dimensions - 1, in row-major order.
std::vector<Box> boxes_of(const ShardLayout& layout);

// Flat index of a box's first element in `whole`.
std::uint64_t flat_index(const Box& whole, const Extents& coordinates);

// Sweeps over `boxes` and calls `cell` for each of the disjoint cells into which their edges cut
// the tensor, in row-major order of their corners, with the positions in `boxes` of those that
// cover it: at least one. Returns the first stretch of elements that no box covers, if there is
// one.
struct Gap {
  std::uint64_t first = 0;
  std::uint64_t last = 0;
};
using CellVisitor = std::function<void(const Box& cell, std::span<const std::uint32_t> covering)>;
std::optional<Gap> sweep(const Box& whole, std::span<const Box> boxes, const CellVisitor& cell);

// A stretch of a shard's memory.
struct Stretch {
  std::uint64_t begin = 0;  // element of the shard
  std::uint64_t count = 0;
};

// How many stretches append_runs() would append.
std::uint64_t count_runs(const ShardLayout& layout, const Box& cell);

// Appends the stretches of the shard's memory that hold `cell`, which lies within it.
void append_runs(const ShardLayout& layout, const Box& cell, std::vector<Stretch>& runs);

// Where elements [begin, begin + count) of the shard lie in the whole tensor: a flat index for a
// contiguous stretch, else a map.
struct Place {
  std::uint64_t index = 0;  // of the first element
  std::optional<kernels::IndexMap> map;
};
Place place_of(const ShardLayout& layout, const Stretch& run);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_LAYOUT_H_
