// What one rank declares at bind, and its exchange with the other ranks.
#ifndef GRADWARDEN_CLIENT_GUARD_DECLARATION_H_
#define GRADWARDEN_CLIENT_GUARD_DECLARATION_H_

#include <span>
#include <string>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/tensor.h"

namespace gradwarden::guard {

struct Declaration {
  std::string error;                // what is wrong with this rank's own arguments; empty: nothing
  std::string settings;             // must be equal on all ranks
  std::vector<TensorShard> shards;  // data is not exchanged
};

// Checks what can be checked on one rank: null pointers, dtypes, sizes. Returns a sentence or
// nothing.
std::string check_shards(std::span<const TensorShard> shards, const char* list);

// Every rank's declaration, in rank order. Throws Error if the exchange fails.
std::vector<Declaration> exchange(const Declaration& mine, Collective& ranks);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_DECLARATION_H_
