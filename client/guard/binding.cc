#include "client/guard/binding.h"

#include <algorithm>

#include "client/guard/declaration.h"
#include "client/guard/union_table.h"
#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

// More stretches of one shard than this would cost more to read than the shard itself.
constexpr std::size_t kMaxRuns = 1 << 16;

void check_declarations(const std::vector<Declaration>& declarations) {
  for (std::size_t rank = 0; rank < declarations.size(); ++rank) {
    if (!declarations[rank].error.empty()) {
      throw Error("bind: on rank " + std::to_string(rank) + ", " + declarations[rank].error);
    }
    if (declarations[rank].settings != declarations[0].settings) {
      throw Error("bind: the guard's options differ between ranks: rank 0 has " +
                  declarations[0].settings + ", rank " + std::to_string(rank) + " has " +
                  declarations[rank].settings);
    }
  }
}

std::string names_of(const Declaration& declaration) {
  std::string names;
  for (const DeclaredList& list : declaration.lists) names += " \"" + list.name + "\"";
  return names;
}

void check_lists(const std::vector<Declaration>& declarations) {
  const std::string first = names_of(declarations[0]);
  for (std::size_t rank = 1; rank < declarations.size(); ++rank) {
    const std::string here = names_of(declarations[rank]);
    if (here != first) {
      std::string problem = "bind: rank 0 declares the lists" + first;
      problem += ", rank " + std::to_string(rank) + here;
      throw Error(problem + "; declare the same on all, empty where a rank holds nothing");
    }
  }
}

void add_tables(const UnionTable& gradients, Binding& binding) {
  std::unordered_map<std::string, std::uint32_t> groups;
  for (const UnionTensor& tensor : gradients.tensors) {
    const auto [group, added] =
        groups.try_emplace(tensor.group, static_cast<std::uint32_t>(binding.groups.size()));
    if (added) binding.groups.push_back(tensor.group);
    binding.tensors.push_back(tensor.name);
    binding.group_of_tensor.push_back(group->second);
    binding.element_count += tensor.total;
  }
}

// The other lists name tensors of the gradients, so that all views of a tensor share an index.
std::uint32_t index_of(const UnionTable& gradients, const std::string& list,
                       const std::string& name, std::uint64_t total) {
  const auto entry = gradients.index.find(name);
  if (entry == gradients.index.end()) {
    throw Error(list + ": tensor \"" + name +
                "\" is not among the shards of any rank; use the same names in both lists");
  }
  const std::uint64_t expected = gradients.tensors[entry->second].total;
  if (total != expected) {
    throw Error(list + ": tensor \"" + name + "\" has " + std::to_string(total) +
                " elements, its shards say " + std::to_string(expected));
  }
  return entry->second;
}

// The segments of one list on this rank, and the regions of it that several ranks hold.
class ListBinder {
 public:
  ListBinder(std::span<const TensorShard> shards, std::uint32_t list, bool audited,
             std::uint32_t rank, Binding& binding)
      : shards_(shards), list_(list), audited_(audited), rank_(rank), binding_(binding) {}

  // `tensor` is its index among the gradients.
  void add(const UnionTensor& tensor, std::uint32_t index, bool identical) {
    const std::vector<HeldCell> cells = cells_of(tensor, sets_);
    add_regions(tensor, index, identical, cells);
    std::vector<std::vector<const HeldCell*>> mine(tensor.pieces.size());
    for (const HeldCell& cell : cells) {
      for (const std::uint32_t piece : cell.pieces) {
        if (tensor.pieces[piece].rank == rank_) mine[piece].push_back(&cell);
      }
    }
    for (std::size_t piece = 0; piece < mine.size(); ++piece) {
      if (!mine[piece].empty()) add_piece(tensor.pieces[piece], index, mine[piece]);
    }
  }

  // What only this rank sees to be wrong; empty: nothing.
  const std::string& problem() const { return problem_; }

  // In the order of the shards.
  std::vector<Segment> take() {
    std::stable_sort(segments_.begin(), segments_.end(),
                     [](const Segment& a, const Segment& b) { return a.shard < b.shard; });
    return std::move(segments_);
  }

 private:
  struct HeldRun {
    Stretch run;
    std::uint32_t holders = 0;
  };

  void add_regions(const UnionTensor& tensor, std::uint32_t index, bool identical,
                   const std::vector<HeldCell>& cells) {
    region_of_.clear();
    if (!audited_) return;
    const Box whole = layout_of({}, tensor.shape, tensor.total).whole;
    for (const HeldCell& cell : cells) {
      const std::vector<std::uint32_t>& ranks = sets_[cell.holders];
      if (ranks.size() < 2) continue;
      const auto [entry, added] =
          region_of_.try_emplace(cell.holders, static_cast<std::uint32_t>(binding_.regions.size()));
      if (added) {
        const std::uint64_t first = flat_index(whole, cell.cell.begin);
        binding_.regions.push_back({list_, index, first, 0, identical, ranks});
      }
      binding_.regions[entry->second].count += cell.cell.size();
    }
  }

  void add_piece(const Piece& piece, std::uint32_t index,
                 const std::vector<const HeldCell*>& cells) {
    const bool uniform = std::all_of(cells.begin(), cells.end(), [&](const HeldCell* cell) {
      return cell->holders == cells[0]->holders;
    });
    if (uniform) {
      add_segment(piece, index, {{0, piece.layout.count}, cells[0]->holders});
      return;
    }
    for (const HeldRun& run : runs_of(piece, index, cells)) add_segment(piece, index, run);
  }

  // Empty, with a problem noted, where they are too many.
  std::vector<HeldRun> runs_of(const Piece& piece, std::uint32_t index,
                               const std::vector<const HeldCell*>& cells) {
    std::uint64_t count = 0;  // before neighbours are merged
    for (const HeldCell* cell : cells) count += count_runs(piece.layout, cell->cell);
    if (count > kMaxRuns) {
      note_too_many(index, count);
      return {};
    }
    std::vector<HeldRun> all;
    std::vector<Stretch> runs;
    for (const HeldCell* cell : cells) {
      runs.clear();
      append_runs(piece.layout, cell->cell, runs);
      for (const Stretch& run : runs) all.push_back({run, cell->holders});
    }
    std::sort(all.begin(), all.end(),
              [](const HeldRun& a, const HeldRun& b) { return a.run.begin < b.run.begin; });
    std::vector<HeldRun> merged;
    for (const HeldRun& run : all) {
      if (!merged.empty() && merged.back().holders == run.holders) {
        merged.back().run.count += run.run.count;  // they cover the shard without a gap
      } else {
        merged.push_back(run);
      }
    }
    return merged;
  }

  void note_too_many(std::uint32_t index, std::uint64_t count) {
    if (!problem_.empty()) return;
    problem_ = "tensor \"" + binding_.tensors[index] +
               "\": its replicas cut this rank's shard into " + std::to_string(count) +
               " stretches; allowed: " + std::to_string(kMaxRuns) +
               ". Shard it along the same dimension on all ranks";
  }

  void add_segment(const Piece& piece, std::uint32_t index, const HeldRun& held) {
    const TensorShard& shard = shards_[piece.shard];
    Segment& segment = segments_.emplace_back();
    segment.tensor = index;
    segment.group = binding_.group_of_tensor[index];
    segment.byte_offset = held.run.begin * dtype_bytes(shard.dtype);
    segment.data = static_cast<char*>(shard.data) + segment.byte_offset;
    segment.count = held.run.count;
    segment.dtype = shard.dtype;
    segment.replicas = static_cast<std::uint32_t>(sets_[held.holders].size());
    segment.shard = piece.shard;
    const Place place = place_of(piece.layout, held.run);
    segment.offset = place.index;
    segment.map = place.map;
    const auto region = region_of_.find(held.holders);
    if (region != region_of_.end()) segment.region = region->second;
  }

  std::span<const TensorShard> shards_;
  const std::uint32_t list_;
  const bool audited_;
  const std::uint32_t rank_;
  Binding& binding_;
  HolderSets sets_;
  std::unordered_map<std::uint32_t, std::uint32_t> region_of_;  // of this tensor, by holders
  std::vector<Segment> segments_;
  std::string problem_;
};

// Throws what the other ranks do not see.
std::vector<Segment> local_segments(std::span<const TensorShard> local, const UnionTable& gradients,
                                    const Binding& binding) {
  std::vector<Segment> segments;
  for (std::uint32_t i = 0; i < local.size(); ++i) {
    const TensorShard& shard = local[i];
    const std::uint32_t tensor = index_of(gradients, "local", shard.name, total_of(shard));
    const Place place = place_of(layout_of(shard, shard.shape, total_of(shard)), {0, shard.count});
    segments.push_back({tensor, binding.group_of_tensor[tensor], shard.data, shard.count,
                        place.index, shard.dtype, 1, i, 0, kNoRegion, place.map});
  }
  return segments;
}

// Of list `list` of the declarations, 1 or more. Parameters are the same bits on all replicas by
// what they are.
std::string bind_other(const std::vector<Declaration>& declarations, std::size_t list,
                       const UnionTable& gradients, std::uint32_t rank, Binding& binding) {
  const UnionTable table = unite(declarations, list);
  if (table.tensors.empty()) return {};
  BoundList bound;
  bound.name = declarations[0].lists[list].name;
  bound.has_tensor.assign(binding.tensors.size(), false);
  const bool audited = bound.name == kParameterList;
  ListBinder binder(declarations[rank].lists[list].shards,
                    static_cast<std::uint32_t>(binding.others.size() + 1), audited, rank, binding);
  for (const UnionTensor& tensor : table.tensors) {
    const std::uint32_t index =
        index_of(gradients, "bind: " + bound.name, tensor.name, tensor.total);
    bound.has_tensor[index] = true;
    bound.element_count += tensor.total;
    binder.add(tensor, index, true);
  }
  bound.segments = binder.take();
  binding.others.push_back(std::move(bound));
  return binder.problem();
}

// This rank's pointers, which were not exchanged.
void restore_pointers(const Bindings& bindings, Declaration& mine) {
  const auto restore = [](std::span<const TensorShard> from, DeclaredList& list) {
    for (std::size_t i = 0; i < from.size(); ++i) list.shards[i].data = from[i].data;
  };
  restore(bindings.gradients, mine.lists[0]);
  restore(bindings.parameters, mine.lists[1]);
  for (std::size_t i = 0; i < bindings.others.size(); ++i) {
    restore(bindings.others[i].shards, mine.lists[i + 2]);
  }
}

// Throws, on every rank alike, what all can see; returns what only this rank sees to be wrong.
std::string bind_lists(const std::vector<Declaration>& declarations, std::uint32_t rank,
                       std::span<const TensorShard> local, Binding& binding) {
  const UnionTable gradients = unite(declarations, 0);
  add_tables(gradients, binding);
  ListBinder binder(declarations[rank].lists[0].shards, 0, true, rank, binding);
  for (std::uint32_t i = 0; i < gradients.tensors.size(); ++i) {
    binder.add(gradients.tensors[i], i, gradients.tensors[i].identical);
  }
  binding.shards = binder.take();
  binding.shard_count = declarations[rank].lists[0].shards.size();
  std::string problem = binder.problem();
  for (std::size_t list = 1; list < declarations[0].lists.size(); ++list) {
    const std::string found = bind_other(declarations, list, gradients, rank, binding);
    if (problem.empty()) problem = found;
  }
  binding.local_is_whole =
      std::all_of(declarations.begin(), declarations.end(), [&](const Declaration& declaration) {
        return declaration.local_count == binding.element_count && binding.element_count != 0;
      });
  try {
    binding.local = local_segments(local, gradients, binding);
  } catch (const Error& error) {
    if (problem.empty()) problem = error.what();
  }
  return problem;
}

}  // namespace

void agree(const std::string& problem, Collective& ranks) {
  Declaration mine;
  mine.error = problem;
  check_declarations(exchange(mine, ranks));
}

Binding make_binding(const Bindings& bindings, const std::string& settings, Collective& ranks,
                     const std::string& problem) {
  Declaration mine = declare(bindings);
  if (!problem.empty()) mine.error = problem;
  mine.settings = settings;
  std::vector<Declaration> declarations = exchange(mine, ranks);
  check_declarations(declarations);
  check_lists(declarations);
  const auto rank = static_cast<std::uint32_t>(ranks.rank());
  restore_pointers(bindings, declarations[rank]);
  Binding binding;
  std::string found;
  try {
    found = bind_lists(declarations, rank, bindings.local, binding);
  } catch (const Error&) {
    throw;  // every rank sees it and throws alike
  } catch (const std::exception& error) {
    found = error.what();  // out of memory, on this rank
  }
  agree(found, ranks);
  return binding;
}

}  // namespace gradwarden::guard
