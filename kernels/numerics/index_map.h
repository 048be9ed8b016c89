// Where the elements of a shard lie in the whole tensor, when the shard is a box of it and not a
// contiguous stretch (tensor parallelism over columns).
#ifndef GRADWARDEN_KERNELS_NUMERICS_INDEX_MAP_H_
#define GRADWARDEN_KERNELS_NUMERICS_INDEX_MAP_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

inline constexpr std::uint32_t kMaxDimensions = 8;

// Element i of the shard is element `first + i` of a box in row-major order; coordinate c of the
// box's dimension d lies c * stride[d] elements behind the box's corner in the whole tensor.
struct IndexMap {
  std::uint64_t first = 0;
  std::uint64_t corner = 0;  // flat index in the whole tensor
  std::uint32_t dimensions = 0;
  std::uint32_t reserved = 0;
  std::uint64_t extent[kMaxDimensions] = {};
  std::uint64_t stride[kMaxDimensions] = {};
};

// The flat index, in the whole tensor, of the shard's element i. Rises with i.
GRADWARDEN_HD inline std::uint64_t whole_index(const IndexMap& map, std::uint64_t i) {
  std::uint64_t rest = map.first + i;
  std::uint64_t index = map.corner;
  for (std::uint32_t d = map.dimensions; d-- > 0;) {
    index += rest % map.extent[d] * map.stride[d];
    rest /= map.extent[d];
  }
  return index;
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_INDEX_MAP_H_
