// From what each rank declares to what the guard reads: the union of all tensors, the segments of
// this rank's shards and the weight of each. Made once at bind, by a collective exchange that ends
// alike on every rank.
#ifndef GRADWARDEN_CLIENT_GUARD_BINDING_H_
#define GRADWARDEN_CLIENT_GUARD_BINDING_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/step_record.h"
#include "gradwarden/tensor.h"
#include "kernels/numerics/index_map.h"

namespace gradwarden::guard {

inline constexpr std::uint32_t kNoRegion = 0xffffffffU;

// A stretch of one shard's memory whose elements are all on the same ranks.
struct Segment {
  std::uint32_t tensor = 0;  // index into Binding::tensors
  std::uint32_t group = 0;
  void* data = nullptr;
  std::uint64_t count = 0;
  std::uint64_t offset = 0;  // flat index of its first element in the whole tensor
  DType dtype = DType::kFloat32;
  std::uint32_t replicas = 1;
  std::uint32_t shard = 0;           // position in the list given to bind
  std::uint64_t byte_offset = 0;     // of `data` in that shard
  std::uint32_t region = kNoRegion;  // index into Binding::regions
  // Where its elements lie in the whole tensor, if not from `offset` on one after another.
  std::optional<kernels::IndexMap> map = {};

  std::uint64_t whole_index(std::uint64_t i) const {
    return map ? kernels::whole_index(*map, i) : offset + i;
  }
};

// The elements of one tensor that the same several ranks hold: what an audit compares.
struct Region {
  std::uint32_t list = 0;  // 0: gradients; n: Binding::others[n - 1]
  std::uint32_t tensor = 0;
  std::uint64_t index = 0;  // flat index of its first element in the whole tensor
  std::uint64_t count = 0;
  bool identical = false;  // the replicas promise equal bits
  std::vector<std::uint32_t> ranks;
};

// One list of tensors beside the gradients.
struct BoundList {
  std::string name;
  std::vector<Segment> segments;    // of this rank
  std::uint64_t element_count = 0;  // of its tensors, each element once
  std::vector<bool> has_tensor;     // by index into Binding::tensors
};

struct Binding {
  std::vector<std::string> groups;
  std::vector<std::string> tensors;
  std::vector<std::uint32_t> group_of_tensor;
  std::uint64_t element_count = 0;  // of all tensors, each element once
  std::size_t shard_count = 0;      // in the list given to bind
  std::vector<Segment> shards;      // of this rank
  std::vector<Segment> local;       // of this rank, for observe_local
  bool local_is_whole = false;      // on every rank, `local` covers all elements
  std::vector<BoundList> others;    // those with tensors on some rank; the same on all ranks
  std::vector<Region> regions;      // of gradients and parameters; the same on all ranks
};

// Exchanges the declarations of all ranks, checks them and returns this rank's view. `settings` is
// a text that must be equal on all ranks (the guard's options); `problem` is what the caller
// already found wrong on this rank, or empty. Throws Error, the same one on every rank.
Binding make_binding(const Bindings& bindings, const std::string& settings, Collective& ranks,
                     const std::string& problem = {});

// A small exchange of its own: what only one rank can see must still end alike on all. Throws Error
// on every rank if `problem` is not empty on one.
void agree(const std::string& problem, Collective& ranks);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_BINDING_H_
