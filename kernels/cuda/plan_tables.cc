#include "kernels/cuda/plan_tables.h"

#include <algorithm>

namespace gradwarden::kernels::cuda {

PlanTables build_plan(std::span<const TensorEntry> tensors, std::uint32_t group_count) {
  PlanTables tables;
  tables.tensors.assign(tensors.begin(), tensors.end());
  tables.group_first.assign(group_count + 1, 0);
  for (std::uint32_t t = 0; t < tables.tensors.size(); ++t) {
    TensorEntry& tensor = tables.tensors[t];
    tensor.first_chunk = tables.chunks.size();
    tensor.chunk_count = chunks_of(tensor.count, tensor.dtype);
    for (std::uint64_t c = 0; c < tensor.chunk_count; ++c) {
      tables.chunks.push_back({t, static_cast<std::uint32_t>(c)});
    }
    ++tables.group_first[tensor.group + 1];
  }
  // group_first[g + 1] is group g's size so far; the running sum makes it its end.
  tables.largest_group = *std::max_element(tables.group_first.begin(), tables.group_first.end());
  for (std::uint32_t g = 0; g < group_count; ++g) {
    tables.group_first[g + 1] += tables.group_first[g];
  }
  std::vector<std::uint32_t> next = tables.group_first;
  tables.group_tensors.resize(tables.tensors.size());
  for (std::uint32_t t = 0; t < tables.tensors.size(); ++t) {
    tables.group_tensors[next[tables.tensors[t].group]++] = t;
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
  plan.largest_group = sizes.largest_group;
  return plan;
}

}  // namespace gradwarden::kernels::cuda
