// One guarded step through the public C API behind a function that torch_agreement.py calls by
// ctypes: compiled against the header, so that the layouts of its structs are not written down
// again in Python.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "gradwarden/gradwarden.h"

namespace {

bool is_ok(gradwarden_status status) {
  if (status == GRADWARDEN_OK) return true;
  std::fprintf(stderr, "gradwarden: %s\n", gradwarden_last_error());
  return false;
}

std::vector<gradwarden_shard> shards_of(void* const* data, const std::uint64_t* counts,
                                        const std::int32_t* dtypes,
                                        const std::vector<std::string>& names) {
  std::vector<gradwarden_shard> shards(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    shards[i].name = names[i].c_str();
    shards[i].data = data[i];
    shards[i].count = counts[i];
    shards[i].dtype = dtypes[i];
  }
  return shards;
}

}  // namespace

// Clips the gradients by norm and value, each off at 0. Returns the decision, or 0 on an error.
extern "C" __attribute__((visibility("default"))) std::int32_t gwt_clip(
    void* const* data, const std::uint64_t* counts, const std::int32_t* dtypes, std::size_t tensors,
    double max_norm, double norm_type, double value_limit, double* norm, double* coefficient) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < tensors; ++i) names.push_back("tensor" + std::to_string(i));
  const std::vector<gradwarden_shard> shards = shards_of(data, counts, dtypes, names);
  gradwarden_guard_options options;
  gradwarden_guard_options_init(&options);
  options.max_norm = max_norm;
  options.norm_type = norm_type;
  options.value_limit = value_limit;
  gradwarden_ranks* ranks = nullptr;
  gradwarden_guard* guard = nullptr;
  const gradwarden_step_input input{};
  gradwarden_step_outcome outcome{};
  const bool done = is_ok(gradwarden_ranks_create_single(&ranks)) &&
                    is_ok(gradwarden_guard_create(&options, ranks, nullptr, &guard)) &&
                    is_ok(gradwarden_guard_bind(guard, shards.data(), shards.size(), nullptr, 0)) &&
                    is_ok(gradwarden_guard_step(guard, &input, &outcome));
  gradwarden_guard_destroy(guard);
  gradwarden_ranks_destroy(ranks);
  *norm = outcome.grad_norm;
  *coefficient = outcome.clip_coefficient;
  return done ? static_cast<std::int32_t>(outcome.decision) : 0;
}
