// Builds the tables of plan.h in host memory, to be copied to the device at bind.
//
// Pure and allocating: called at bind, never in a step.
#ifndef GRADWARDEN_KERNELS_CUDA_PLAN_TABLES_H_
#define GRADWARDEN_KERNELS_CUDA_PLAN_TABLES_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/plan.h"

namespace gradwarden::kernels::cuda {

struct PlanTables {
  std::vector<TensorEntry> tensors;
  std::vector<ChunkEntry> chunks;
  std::vector<std::uint32_t> group_tensors;
  std::vector<std::uint32_t> group_first;
  std::vector<std::uint32_t> whole_parts;
  std::vector<std::uint32_t> whole_first;
  std::uint32_t largest_group = 0;
};

// The chunk fields of `tensors` are filled in here; the rest is the caller's. Groups are
// [0, group_count) and each tensor's is one of them. `whole_count` tensors of the whole model: for
// sums by tensor; 0 where they are not wanted, else ids are below it.
PlanTables build_plan(std::span<const TensorEntry> tensors, std::uint32_t group_count,
                      std::uint32_t whole_count = 0);

// The sizes of the tables, with pointers to the copies of them that kernels read.
Plan plan_over(const PlanTables& sizes, const TensorEntry* tensors, const ChunkEntry* chunks,
               const std::uint32_t* group_tensors, const std::uint32_t* group_first);

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_PLAN_TABLES_H_
