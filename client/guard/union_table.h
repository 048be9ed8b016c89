// The union of what all ranks declare: every tensor once, with the shards of it that the ranks
// hold, and proof that they fit together. Every rank computes the same from the same declarations.
#ifndef GRADWARDEN_CLIENT_GUARD_UNION_TABLE_H_
#define GRADWARDEN_CLIENT_GUARD_UNION_TABLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/guard/declaration.h"
#include "client/guard/layout.h"

namespace gradwarden::guard {

// One rank's shard of a tensor.
struct Piece {
  std::uint32_t rank = 0;
  std::uint32_t shard = 0;  // position in that rank's list
  std::uint32_t declared_replicas = 0;
  ShardLayout layout;
};

struct UnionTensor {
  std::string name;
  std::string group;
  DType dtype = DType::kFloat32;
  std::uint64_t total = 0;
  bool identical = false;
  std::vector<std::uint64_t> shape;  // empty: no rank gave one
  std::uint32_t first_rank = 0;      // that declared it
  std::vector<Piece> pieces;
};

struct UnionTable {
  std::vector<UnionTensor> tensors;
  std::unordered_map<std::string, std::uint32_t> index;  // by name
};

// Of the list at `list` of each declaration. Throws Error where ranks contradict each other.
UnionTable unite(const std::vector<Declaration>& declarations, std::size_t list);

// Where a shard lies in a tensor of this shape and size.
ShardLayout layout_of(const TensorShard& shard, const std::vector<std::uint64_t>& shape,
                      std::uint64_t total);

// Sets of ranks, each once.
class HolderSets {
 public:
  // `ranks` is sorted.
  std::uint32_t intern(const std::vector<std::uint32_t>& ranks);
  const std::vector<std::uint32_t>& operator[](std::uint32_t set) const { return sets_[set]; }

 private:
  std::vector<std::vector<std::uint32_t>> sets_;
  std::map<std::vector<std::uint32_t>, std::uint32_t> index_;
};

// A part of a tensor that one set of ranks holds.
struct HeldCell {
  Box cell;
  std::uint32_t holders = 0;          // index into HolderSets
  std::vector<std::uint32_t> pieces;  // of UnionTensor::pieces
};

// The cells of a tensor, in order. Throws Error if an element is on no rank, twice on one rank, or
// on other than the declared number of ranks.
std::vector<HeldCell> cells_of(const UnionTensor& tensor, HolderSets& sets);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_UNION_TABLE_H_
