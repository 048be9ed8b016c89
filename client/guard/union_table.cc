#include "client/guard/union_table.h"

#include <algorithm>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

const std::string& group_of(const TensorShard& shard) {
  return shard.group.empty() ? shard.name : shard.group;
}

const char* dtype_name(DType dtype) {
  static constexpr const char* kNames[] = {"float64", "float32", "bfloat16", "float16"};
  return kNames[static_cast<unsigned>(dtype)];
}

std::string text_of(const std::vector<std::uint64_t>& shape) {
  std::string text = "[";
  for (const std::uint64_t extent : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  }
  return text + "]";
}

void require_equal(const char* what, const UnionTensor& tensor, const std::string& first,
                   const std::string& other, std::uint32_t rank) {
  if (first == other) return;
  throw Error("bind: tensor \"" + tensor.name + "\" has " + what + " " + first + " on rank " +
              std::to_string(tensor.first_rank) + " and " + other + " on rank " +
              std::to_string(rank) + "; declare it alike on both");
}

void require_alike(UnionTensor& tensor, const TensorShard& shard, std::uint32_t rank) {
  require_equal("group", tensor, tensor.group, group_of(shard), rank);
  require_equal("dtype", tensor, dtype_name(tensor.dtype), dtype_name(shard.dtype), rank);
  require_equal("total_count", tensor, std::to_string(tensor.total),
                std::to_string(total_of(shard)), rank);
  require_equal("identical", tensor, tensor.identical ? "set" : "not set",
                shard.identical ? "set" : "not set", rank);
  if (shard.shape.empty()) return;
  if (tensor.shape.empty()) tensor.shape = shard.shape;
  require_equal("shape", tensor, text_of(tensor.shape), text_of(shard.shape), rank);
}

void add_layouts(const std::vector<Declaration>& declarations, std::size_t list,
                 UnionTensor& tensor) {
  for (Piece& piece : tensor.pieces) {
    const TensorShard& shard = declarations[piece.rank].lists[list].shards[piece.shard];
    piece.layout = layout_of(shard, tensor.shape, tensor.total);
  }
}

// The boxes of all pieces, and to which piece each belongs.
struct Boxes {
  std::vector<Box> boxes;
  std::vector<std::uint32_t> piece;
};

Boxes boxes_of(const UnionTensor& tensor) {
  Boxes all;
  for (std::uint32_t p = 0; p < tensor.pieces.size(); ++p) {
    for (const Box& box : boxes_of(tensor.pieces[p].layout)) {
      all.boxes.push_back(box);
      all.piece.push_back(p);
    }
  }
  return all;
}

void check_replicas(const UnionTensor& tensor, const Piece& piece, std::size_t replicas) {
  if (piece.declared_replicas == 0 || piece.declared_replicas == replicas) return;
  throw Error("bind: on rank " + std::to_string(piece.rank) + ", tensor \"" + tensor.name +
              "\" is declared to be on " + std::to_string(piece.declared_replicas) +
              " ranks; by what the ranks declare it is on " + std::to_string(replicas) +
              ". Correct the shards or leave replicas 0");
}

void check_once_per_rank(const UnionTensor& tensor, const std::vector<std::uint32_t>& ranks,
                         std::uint64_t element) {
  const auto twice = std::adjacent_find(ranks.begin(), ranks.end());
  if (twice == ranks.end()) return;
  throw Error("bind: on rank " + std::to_string(*twice) + ", two shards of tensor \"" +
              tensor.name + "\" overlap at element " + std::to_string(element) +
              "; declare each element once");
}

}  // namespace

UnionTable unite(const std::vector<Declaration>& declarations, std::size_t list) {
  UnionTable table;
  for (std::uint32_t rank = 0; rank < declarations.size(); ++rank) {
    const std::vector<TensorShard>& shards = declarations[rank].lists[list].shards;
    for (std::uint32_t i = 0; i < shards.size(); ++i) {
      const TensorShard& shard = shards[i];
      const auto [entry, added] =
          table.index.try_emplace(shard.name, static_cast<std::uint32_t>(table.tensors.size()));
      if (added) {
        table.tensors.push_back({shard.name,
                                 group_of(shard),
                                 shard.dtype,
                                 total_of(shard),
                                 shard.identical,
                                 shard.shape,
                                 rank,
                                 {}});
      }
      UnionTensor& tensor = table.tensors[entry->second];
      require_alike(tensor, shard, rank);
      if (shard.count != 0) tensor.pieces.push_back({rank, i, shard.replicas, {}});
    }
  }
  for (UnionTensor& tensor : table.tensors) add_layouts(declarations, list, tensor);
  return table;
}

ShardLayout layout_of(const TensorShard& shard, const std::vector<std::uint64_t>& shape,
                      std::uint64_t total) {
  ShardLayout layout;
  const std::vector<std::uint64_t> extents =
      shape.empty() ? std::vector<std::uint64_t>{total} : shape;
  layout.whole.dimensions = static_cast<std::uint32_t>(extents.size());
  std::copy(extents.begin(), extents.end(), layout.whole.end.begin());
  layout.box = layout.whole;
  for (std::size_t d = 0; d < shard.shape.size(); ++d) {
    if (!shard.start.empty()) layout.box.begin[d] = shard.start[d];
    if (!shard.extent.empty()) layout.box.end[d] = layout.box.begin[d] + shard.extent[d];
  }
  layout.offset = shard.offset;
  layout.count = shard.count;
  return layout;
}

std::uint32_t HolderSets::intern(const std::vector<std::uint32_t>& ranks) {
  const auto [entry, added] = index_.try_emplace(ranks, static_cast<std::uint32_t>(sets_.size()));
  if (added) sets_.push_back(ranks);
  return entry->second;
}

std::vector<HeldCell> cells_of(const UnionTensor& tensor, HolderSets& sets) {
  std::vector<HeldCell> cells;
  const Boxes all = boxes_of(tensor);
  const Box whole = layout_of({}, tensor.shape, tensor.total).whole;
  std::vector<std::uint32_t> ranks;
  const auto visit = [&](const Box& cell, std::span<const std::uint32_t> covering) {
    HeldCell& held = cells.emplace_back();
    held.cell = cell;
    ranks.clear();
    for (const std::uint32_t box : covering) {
      held.pieces.push_back(all.piece[box]);
      ranks.push_back(tensor.pieces[all.piece[box]].rank);
    }
    std::sort(ranks.begin(), ranks.end());
    check_once_per_rank(tensor, ranks, flat_index(whole, cell.begin));
    for (const std::uint32_t piece : held.pieces) {
      check_replicas(tensor, tensor.pieces[piece], ranks.size());
    }
    held.holders = sets.intern(ranks);
  };
  if (const std::optional<Gap> gap = sweep(whole, all.boxes, visit)) {
    throw Error("bind: elements " + std::to_string(gap->first) + " to " +
                std::to_string(gap->last) + " of tensor \"" + tensor.name +
                "\" are on no rank; the norm would leave them out. Declare the missing shard");
  }
  return cells;
}

}  // namespace gradwarden::guard
