#include "kernels/cuda/plan_tables.h"

#include <algorithm>

namespace gradwarden::kernels::cuda {

namespace {

// Deals positions out to `count` buckets, in order: those of bucket b are then
// [first[b], first[b + 1]) of `members`.
void deal(const std::vector<TensorEntry>& tensors, std::uint32_t TensorEntry::*bucket,
          std::uint32_t count, std::vector<std::uint32_t>& members,
          std::vector<std::uint32_t>& first) {
  first.assign(count + 1, 0);
  for (const TensorEntry& tensor : tensors) ++first[tensor.*bucket + 1];
  for (std::uint32_t b = 0; b < count; ++b) first[b + 1] += first[b];
  std::vector<std::uint32_t> next = first;
  members.resize(tensors.size());
  for (std::uint32_t t = 0; t < tensors.size(); ++t) members[next[tensors[t].*bucket]++] = t;
}

std::uint32_t largest_of(const std::vector<std::uint32_t>& first) {
  std::uint32_t largest = 0;
  for (std::size_t b = 0; b + 1 < first.size(); ++b) {
    largest = std::max(largest, first[b + 1] - first[b]);
  }
  return largest;
}

}  // namespace

PlanTables build_plan(std::span<const TensorEntry> tensors, std::uint32_t group_count,
                      std::uint32_t whole_count) {
  PlanTables tables;
  tables.tensors.assign(tensors.begin(), tensors.end());
  for (std::uint32_t t = 0; t < tables.tensors.size(); ++t) {
    TensorEntry& tensor = tables.tensors[t];
    tensor.first_chunk = tables.chunks.size();
    tensor.chunk_count = chunks_of(tensor.count, tensor.dtype);
    for (std::uint64_t c = 0; c < tensor.chunk_count; ++c) {
      tables.chunks.push_back({t, static_cast<std::uint32_t>(c)});
    }
  }
  deal(tables.tensors, &TensorEntry::group, group_count, tables.group_tensors, tables.group_first);
  tables.largest_group = largest_of(tables.group_first);
  if (whole_count != 0) {
    deal(tables.tensors, &TensorEntry::id, whole_count, tables.whole_parts, tables.whole_first);
  }
  return tables;
}

Plan plan_over(const PlanTables& sizes, const TensorEntry* tensors, const ChunkEntry* chunks,
               const std::uint32_t* group_tensors, const std::uint32_t* group_first) {
  Plan plan;
  plan.tensors = tensors;
  plan.chunks = chunks;
  plan.group_tensors = group_tensors;
  plan.group_first = group_first;
  plan.chunk_count = sizes.chunks.size();
  plan.tensor_count = static_cast<std::uint32_t>(sizes.tensors.size());
  plan.group_count = static_cast<std::uint32_t>(sizes.group_first.size() - 1);
  plan.whole_count =
      sizes.whole_first.empty() ? 0 : static_cast<std::uint32_t>(sizes.whole_first.size() - 1);
  plan.largest_group = sizes.largest_group;
  return plan;
}

}  // namespace gradwarden::kernels::cuda
