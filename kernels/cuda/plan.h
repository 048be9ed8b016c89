// What the kernels read about the tensors of a binding: tables in device memory, built once at
// bind.
//
// Plain data for host and device, owned by whoever bound them. A chunk is a fixed stretch of one
// tensor that one block reads; the split depends on the tensors alone, never on the grid, which is
// what makes results the same for every grid size.
#ifndef GRADWARDEN_KERNELS_CUDA_PLAN_H_
#define GRADWARDEN_KERNELS_CUDA_PLAN_H_

#include <cstdint>

#include "kernels/numerics/index_map.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::cuda {

inline constexpr unsigned kBlockThreads = 256;
// A thread reads kRunVectors vectors of 16 bytes before it adds anything up (enough loads in flight
// to cover the latency of memory), and kRunsPerChunk such runs per chunk.
inline constexpr unsigned kVectorBytes = 16;
inline constexpr unsigned kRunVectors = 2;
inline constexpr unsigned kRunsPerChunk = 8;
inline constexpr std::uint64_t kChunkBytes =
    std::uint64_t{kBlockThreads} * kVectorBytes * kRunVectors * kRunsPerChunk;  // 64 KiB

// How the fold kernel shares out its work.
// A group with more tensors than this is folded by the whole block, a smaller one by a warp, so
// that neither one group of ten thousand tensors nor thousands of small groups take long.
inline constexpr std::uint32_t kWarpGroup = 512;

GRADWARDEN_HD constexpr std::uint64_t chunk_elements(DType dtype) {
  return kChunkBytes / dtype_bytes(dtype);
}

GRADWARDEN_HD constexpr std::uint64_t chunks_of(std::uint64_t count, DType dtype) {
  return count / chunk_elements(dtype) + (count % chunk_elements(dtype) != 0 ? 1 : 0);
}

// One shard of one tensor. `data` alone changes after bind, when the trainer's buffers move.
struct TensorEntry {
  void* data = nullptr;
  std::uint64_t count = 0;
  std::uint64_t first_chunk = 0;  // its chunks are [first_chunk, first_chunk + chunk_count)
  std::uint64_t chunk_count = 0;  // 0 for an empty tensor
  std::uint64_t offset = 0;       // flat index of its first element within the whole tensor
  double weight = 1;              // 1 / replicas
  std::uint32_t id = 0;           // of the whole tensor, the same on all ranks
  std::uint32_t group = 0;
  DType dtype = DType::kFloat32;
  std::uint32_t map = kNoMap;  // position in Plan::maps, in place of `offset`

  static constexpr std::uint32_t kNoMap = 0xffffffffU;
};

// Chunk number -> tensor, so that a block needs one read to know its work.
struct ChunkEntry {
  std::uint32_t tensor = 0;  // position in the table of tensors
  std::uint32_t index = 0;   // of the chunk within the tensor
};

// Statistics of one chunk. Counts fit 32 bits: a chunk has at most 32,768 elements.
struct ChunkStatistics {
  double power_sum = 0;
  double max_abs = 0;
  std::uint32_t nan_count = 0;
  std::uint32_t inf_count = 0;
  std::uint32_t zero_count = 0;
  std::uint32_t first_non_finite = kNoElement;  // within the chunk

  static constexpr std::uint32_t kNoElement = 0xffffffffU;
};

// The tables of one binding, all in device memory.
struct Plan {
  const TensorEntry* tensors = nullptr;
  const ChunkEntry* chunks = nullptr;
  // Positions of tensors, group by group; those of group g are [group_first[g], group_first[g+1]).
  const std::uint32_t* group_tensors = nullptr;
  const std::uint32_t* group_first = nullptr;  // group_count + 1
  // Likewise tensor by tensor of the whole model, in the order of their ids, where sums by tensor
  // are wanted (adaptive clipping); null: they are not.
  const std::uint32_t* whole_parts = nullptr;
  const std::uint32_t* whole_first = nullptr;  // whole_count + 1
  // Where shards that are boxes of their tensors lie in them; null: all are contiguous.
  const IndexMap* maps = nullptr;
  std::uint64_t chunk_count = 0;
  std::uint32_t tensor_count = 0;
  std::uint32_t group_count = 0;
  std::uint32_t whole_count = 0;
  std::uint32_t largest_group = 0;  // tensors of the group that has most
};

// The flat index, in the whole tensor, of the shard's element i.
GRADWARDEN_HD inline std::uint64_t index_in_whole(const IndexMap* maps, const TensorEntry& tensor,
                                                  std::uint64_t i) {
  if (tensor.map == TensorEntry::kNoMap) return tensor.offset + i;
  return whole_index(maps[tensor.map], i);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_PLAN_H_
