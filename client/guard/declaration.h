// What one rank declares at bind, and its exchange with the other ranks.
#ifndef GRADWARDEN_CLIENT_GUARD_DECLARATION_H_
#define GRADWARDEN_CLIENT_GUARD_DECLARATION_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/tensor.h"

namespace gradwarden::guard {

struct DeclaredList {
  std::string name;
  std::vector<TensorShard> shards;  // data is not exchanged
};

// Lists beside the gradients, by their position: "parameter" first, then Bindings::others.
inline constexpr char kGradientList[] = "gradient";
inline constexpr char kParameterList[] = "parameter";

struct Declaration {
  std::string error;                // what is wrong with this rank's own arguments; empty: nothing
  std::string settings;             // must be equal on all ranks
  std::vector<DeclaredList> lists;  // gradients, then the others; the same names on all ranks
  std::uint64_t local_count = 0;    // elements of the local gradients
};

// This rank's declaration, with what can be checked on one rank in `error`: null pointers, dtypes,
// sizes.
Declaration declare(const Bindings& bindings);

// Every rank's declaration, in rank order. Throws Error if the exchange fails.
std::vector<Declaration> exchange(const Declaration& mine, Collective& ranks);

// Elements of the whole tensor.
std::uint64_t total_of(const TensorShard& shard);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_DECLARATION_H_
