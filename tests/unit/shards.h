// Shards of host memory as the tests of the guard declare them, and the message of an error.
#ifndef GRADWARDEN_TESTS_UNIT_SHARDS_H_
#define GRADWARDEN_TESTS_UNIT_SHARDS_H_

#include <functional>
#include <string>
#include <vector>

#include "gradwarden/error.h"
#include "gradwarden/guard.h"

namespace gradwarden::test {

// All of a tensor; `values` outlives the binding.
inline TensorShard whole(const char* name, const char* group, std::vector<float>& values) {
  TensorShard shard;
  shard.name = name;
  shard.group = group;
  shard.data = values.data();
  shard.count = values.size();
  return shard;
}

// What Error says that `call` throws; empty if it throws none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_SHARDS_H_
