// From what each rank declares to what the guard reads: the union of all tensors, the segments of
// this rank's shards and the weight of each. Made once at bind, by a collective exchange that ends
// alike on every rank.
#ifndef GRADWARDEN_CLIENT_GUARD_BINDING_H_
#define GRADWARDEN_CLIENT_GUARD_BINDING_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/step_record.h"
#include "gradwarden/tensor.h"

namespace gradwarden::guard {

// A stretch of one shard in which every element is on the same number of ranks.
struct Segment {
  std::uint32_t tensor = 0;  // index into Binding::tensors
  std::uint32_t group = 0;
  void* data = nullptr;
  std::uint64_t count = 0;
  std::uint64_t offset = 0;  // flat index of its first element in the whole tensor
  DType dtype = DType::kFloat32;
  std::uint32_t replicas = 1;
  std::uint32_t shard = 0;        // position in the list given to bind
  std::uint64_t byte_offset = 0;  // of `data` in that shard
};

struct Binding {
  std::vector<std::string> groups;
  std::vector<std::string> tensors;
  std::vector<std::uint32_t> group_of_tensor;
  std::uint64_t element_count = 0;  // of all tensors, each element once
  std::size_t shard_count = 0;      // in the list given to bind
  std::vector<Segment> shards;      // of this rank
  std::vector<Segment> local;       // of this rank, for observe_local
};

// Exchanges the declarations of all ranks, checks them and returns this rank's view. `settings` is
// a text that must be equal on all ranks (the guard's options); `problem` is what the caller
// already found wrong on this rank, or empty. Throws Error, the same one on every rank.
Binding make_binding(std::span<const TensorShard> shards, std::span<const TensorShard> local,
                     const std::string& settings, Collective& ranks,
                     const std::string& problem = {});

// A small exchange of its own: what only one rank can see must still end alike on all. Throws Error
// on every rank if `problem` is not empty on one.
void agree(const std::string& problem, Collective& ranks);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_BINDING_H_
