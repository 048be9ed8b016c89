#include "client/guard/binding.h"

#include <algorithm>
#include <unordered_map>

#include "client/guard/declaration.h"
#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

struct Interval {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::size_t rank = 0;
};

struct UnionTensor {
  std::string name;
  std::string group;
  DType dtype = DType::kFloat32;
  std::uint64_t total = 0;
  std::size_t first_rank = 0;  // that declared it
  std::vector<Interval> intervals;
};

// From `begin` to the next boundary, every element is on `replicas` ranks.
struct Coverage {
  std::uint64_t begin = 0;
  std::uint32_t replicas = 0;
};

std::uint64_t total_of(const TensorShard& shard) {
  return shard.total_count == 0 ? shard.count : shard.total_count;
}

const std::string& group_of(const TensorShard& shard) {
  return shard.group.empty() ? shard.name : shard.group;
}

void require_equal(const char* what, const std::string& name, const std::string& first,
                   std::size_t first_rank, const std::string& other, std::size_t rank) {
  if (first == other) return;
  throw Error("bind: tensor \"" + name + "\" has " + what + " " + first + " on rank " +
              std::to_string(first_rank) + " and " + other + " on rank " + std::to_string(rank) +
              "; declare it alike on both");
}

const char* dtype_name(DType dtype) {
  static constexpr const char* kNames[] = {"float64", "float32", "bfloat16", "float16"};
  return kNames[static_cast<unsigned>(dtype)];
}

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

std::vector<UnionTensor> union_of(const std::vector<Declaration>& declarations) {
  std::vector<UnionTensor> tensors;
  std::unordered_map<std::string, std::size_t> index;
  for (std::size_t rank = 0; rank < declarations.size(); ++rank) {
    for (const TensorShard& shard : declarations[rank].shards) {
      const auto [entry, added] = index.try_emplace(shard.name, tensors.size());
      if (added) {
        tensors.push_back({shard.name, group_of(shard), shard.dtype, total_of(shard), rank, {}});
      }
      UnionTensor& tensor = tensors[entry->second];
      require_equal("group", shard.name, tensor.group, tensor.first_rank, group_of(shard), rank);
      require_equal("dtype", shard.name, dtype_name(tensor.dtype), tensor.first_rank,
                    dtype_name(shard.dtype), rank);
      require_equal("total_count", shard.name, std::to_string(tensor.total), tensor.first_rank,
                    std::to_string(total_of(shard)), rank);
      if (shard.count != 0) {
        tensor.intervals.push_back({shard.offset, shard.offset + shard.count, rank});
      }
    }
  }
  return tensors;
}

// Two shards of one rank must not overlap: the element would be read twice and counted once too
// often.
void check_overlap(const UnionTensor& tensor) {
  std::vector<Interval> sorted = tensor.intervals;
  std::sort(sorted.begin(), sorted.end(), [](const Interval& a, const Interval& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.begin < b.begin;
  });
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].rank == sorted[i - 1].rank && sorted[i].begin < sorted[i - 1].end) {
      throw Error("bind: on rank " + std::to_string(sorted[i].rank) + ", two shards of tensor \"" +
                  tensor.name + "\" overlap at element " + std::to_string(sorted[i].begin) +
                  "; declare each element once");
    }
  }
}

// Sweeps over the interval ends. Throws if an element is on no rank.
std::vector<Coverage> coverage_of(const UnionTensor& tensor) {
  std::vector<std::pair<std::uint64_t, int>> ends;
  for (const Interval& interval : tensor.intervals) {
    ends.emplace_back(interval.begin, 1);
    ends.emplace_back(interval.end, -1);
  }
  std::sort(ends.begin(), ends.end());
  std::vector<Coverage> coverage;
  std::uint32_t replicas = 0;
  std::uint64_t position = 0;
  auto require_covered = [&](std::uint64_t next) {
    if (replicas == 0 && next > position) {
      throw Error("bind: elements " + std::to_string(position) + " to " + std::to_string(next - 1) +
                  " of tensor \"" + tensor.name +
                  "\" are on no rank; the norm would leave them out. Declare the missing shard");
    }
  };
  for (std::size_t i = 0; i < ends.size();) {
    const std::uint64_t here = ends[i].first;
    require_covered(here);
    for (; i < ends.size() && ends[i].first == here; ++i) {
      replicas += static_cast<std::uint32_t>(ends[i].second);
    }
    coverage.push_back({here, replicas});
    position = here;
  }
  require_covered(tensor.total);
  return coverage;
}

// Cuts a shard where the number of replicas changes.
void append_segments(const TensorShard& shard, std::uint32_t position, std::uint32_t tensor,
                     std::uint32_t group, const std::vector<Coverage>& coverage,
                     std::vector<Segment>& out) {
  const std::uint64_t end = shard.offset + shard.count;
  auto next = std::upper_bound(
      coverage.begin(), coverage.end(), shard.offset,
      [](std::uint64_t position, const Coverage& c) { return position < c.begin; });
  std::uint64_t begin = shard.offset;
  while (begin < end) {
    const std::uint32_t replicas = (next - 1)->replicas;
    std::uint64_t stop = end;
    while (next != coverage.end() && next->replicas == replicas) ++next;
    if (next != coverage.end() && next->begin < end) stop = next->begin;
    const std::uint64_t skipped = (begin - shard.offset) * dtype_bytes(shard.dtype);
    out.push_back({tensor, group, static_cast<char*>(shard.data) + skipped, stop - begin, begin,
                   shard.dtype, replicas, position, skipped});
    begin = stop;
    if (next != coverage.end()) ++next;
  }
}

struct Indices {
  std::unordered_map<std::string, std::uint32_t> tensor;
  std::unordered_map<std::string, std::uint32_t> group;
};

Indices name_tables(const std::vector<UnionTensor>& tensors, Binding& binding) {
  Indices indices;
  for (const UnionTensor& tensor : tensors) {
    const auto [group, added] =
        indices.group.try_emplace(tensor.group, static_cast<std::uint32_t>(binding.groups.size()));
    if (added) binding.groups.push_back(tensor.group);
    indices.tensor[tensor.name] = static_cast<std::uint32_t>(binding.tensors.size());
    binding.tensors.push_back(tensor.name);
    binding.group_of_tensor.push_back(group->second);
    binding.element_count += tensor.total;
  }
  return indices;
}

// Local gradients name tensors of the union, so that both views of a tensor share an index.
std::vector<Segment> local_segments(std::span<const TensorShard> local, const Indices& indices,
                                    const Binding& binding) {
  std::vector<Segment> segments;
  for (std::uint32_t i = 0; i < local.size(); ++i) {
    const TensorShard& shard = local[i];
    const std::uint32_t tensor = indices.tensor.at(shard.name);
    segments.push_back({tensor, binding.group_of_tensor[tensor], shard.data, shard.count,
                        shard.offset, shard.dtype, 1, i, 0});
  }
  return segments;
}

std::string check_local(std::span<const TensorShard> local, const std::vector<UnionTensor>& tensors,
                        const Indices& indices) {
  for (const TensorShard& shard : local) {
    const auto entry = indices.tensor.find(shard.name);
    if (entry == indices.tensor.end()) {
      return "local: tensor \"" + shard.name +
             "\" is not among the shards of any rank; use the same names in both lists";
    }
    const std::uint64_t total = tensors[entry->second].total;
    if (total_of(shard) != total) {
      return "local: tensor \"" + shard.name + "\" has " + std::to_string(total_of(shard)) +
             " elements, its shards say " + std::to_string(total);
    }
  }
  return {};
}

}  // namespace

void agree(const std::string& problem, Collective& ranks) {
  check_declarations(exchange({problem, {}, {}}, ranks));
}

Binding make_binding(std::span<const TensorShard> shards, std::span<const TensorShard> local,
                     const std::string& settings, Collective& ranks, const std::string& problem) {
  Declaration mine;
  mine.error = problem;
  if (mine.error.empty()) mine.error = check_shards(shards, "shards");
  if (mine.error.empty()) mine.error = check_shards(local, "local");
  mine.settings = settings;
  mine.shards.assign(shards.begin(), shards.end());
  const std::vector<Declaration> declarations = exchange(mine, ranks);
  check_declarations(declarations);

  const std::vector<UnionTensor> tensors = union_of(declarations);
  Binding binding;
  const Indices indices = name_tables(tensors, binding);
  std::vector<std::vector<Coverage>> coverage;
  for (const UnionTensor& tensor : tensors) {
    check_overlap(tensor);
    coverage.push_back(coverage_of(tensor));
  }
  agree(check_local(local, tensors, indices), ranks);
  for (std::uint32_t i = 0; i < shards.size(); ++i) {
    const TensorShard& shard = shards[i];
    if (shard.count == 0) continue;
    const std::uint32_t tensor = indices.tensor.at(shard.name);
    append_segments(shard, i, tensor, binding.group_of_tensor[tensor], coverage[tensor],
                    binding.shards);
  }
  binding.shard_count = shards.size();
  binding.local = local_segments(local, indices, binding);
  return binding;
}

}  // namespace gradwarden::guard
