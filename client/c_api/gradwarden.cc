#include "gradwarden/gradwarden.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "client/c_api/boundary.h"
#include "client/c_api/handles.h"
#include "client/c_api/options.h"

namespace gradwarden::c_api {
namespace {

thread_local std::string last_error;

// More than 8 dimensions are for bind to refuse: none are read beyond one more.
std::vector<std::uint64_t> extents_of(const std::uint64_t* values, std::uint32_t dimensions) {
  if (values == nullptr) return {};
  return {values, values + std::min<std::uint32_t>(dimensions, 9)};
}

// What is wrong with them is for bind to find, on all ranks together: a null array or name becomes
// an empty name, which bind refuses.
std::vector<TensorShard> shards_of(const gradwarden_shard* shards, std::size_t count) {
  std::vector<TensorShard> list;
  if (shards == nullptr && count != 0) list.emplace_back();
  for (std::size_t i = 0; shards != nullptr && i < count; ++i) {
    const gradwarden_shard& s = shards[i];
    TensorShard shard;
    shard.name = s.name != nullptr ? s.name : "";
    shard.group = s.group != nullptr ? s.group : "";
    shard.data = s.data;
    shard.count = s.count;
    shard.dtype = small_enum<DType>(s.dtype);
    shard.total_count = s.total_count;
    shard.offset = s.offset;
    shard.shape = extents_of(s.shape, s.dimensions);
    shard.start = extents_of(s.start, s.dimensions);
    shard.extent = extents_of(s.extent, s.dimensions);
    // Dimensions without a shape: left to bind to refuse.
    if (s.dimensions != 0 && s.shape == nullptr) shard.start.assign(1, 0);
    shard.replicas = s.replicas;
    shard.identical = s.identical != 0;
    list.push_back(std::move(shard));
  }
  return list;
}

struct OwnedList {
  std::string name;
  std::vector<TensorShard> shards;
};

std::vector<OwnedList> lists_of(const gradwarden_tensor_list* lists, std::size_t count) {
  std::vector<OwnedList> owned;
  if (lists == nullptr && count != 0) owned.emplace_back();  // its empty name is refused by bind
  for (std::size_t i = 0; lists != nullptr && i < count; ++i) {
    owned.push_back({lists[i].name != nullptr ? lists[i].name : "",
                     shards_of(lists[i].shards, lists[i].shard_count)});
  }
  return owned;
}

std::optional<double> optional_of(const double* value) {
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

gradwarden_step_outcome outcome_of(const StepOutcome& from) {
  gradwarden_step_outcome outcome{};
  outcome.decision = static_cast<gradwarden_decision>(from.decision);
  outcome.reason = static_cast<gradwarden_reason>(from.reason);
  outcome.grad_norm = from.grad_norm;
  outcome.clip_coefficient = from.clip_coefficient;
  outcome.learning_rate_factor = from.learning_rate_factor;
  outcome.clipped_groups = from.clipped_groups;
  outcome.clipped_tensors = from.clipped_tensors;
  outcome.should_update = from.should_update() ? 1 : 0;
  outcome.stop_requested = from.stop_requested ? 1 : 0;
  return outcome;
}

}  // namespace

gradwarden_status fail(gradwarden_status status, const std::string& message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return status;
}

}  // namespace gradwarden::c_api

using gradwarden::c_api::fail;
using gradwarden::c_api::guarded;
using gradwarden::c_api::null_argument;

const char* gradwarden_last_error(void) { return gradwarden::c_api::last_error.c_str(); }

const char* gradwarden_version(void) { return GRADWARDEN_VERSION; }

const char* gradwarden_decision_name(int32_t decision) {
  using gradwarden::c_api::small_enum;
  return gradwarden::to_string(small_enum<gradwarden::Decision>(decision)).data();
}

const char* gradwarden_reason_name(int32_t reason) {
  using gradwarden::c_api::small_enum;
  return gradwarden::to_string(small_enum<gradwarden::Reason>(reason)).data();
}

// ---- ranks and reporter ------------------------------------------------------------------------

gradwarden_status gradwarden_ranks_create_single(gradwarden_ranks** ranks) {
  if (ranks == nullptr) return null_argument(__func__, "ranks");
  return guarded([&] {
    *ranks = new gradwarden_ranks{std::make_unique<gradwarden::SingleRank>()};
    return GRADWARDEN_OK;
  });
}

gradwarden_status gradwarden_ranks_create(int rank, int size, gradwarden_all_gather all_gather,
                                          void* context, gradwarden_ranks** ranks) {
  if (ranks == nullptr) return null_argument(__func__, "ranks");
  if (all_gather == nullptr) return null_argument(__func__, "all_gather");
  return guarded([&] {
    auto call = [all_gather, context](const void* send, void* receive, std::size_t bytes) {
      return all_gather(context, send, receive, bytes) == 0;
    };
    *ranks = new gradwarden_ranks{
        std::make_unique<gradwarden::CallbackCollective>(rank, size, std::move(call))};
    return GRADWARDEN_OK;
  });
}

void gradwarden_ranks_destroy(gradwarden_ranks* ranks) { delete ranks; }

gradwarden_status gradwarden_reporter_create(const gradwarden_reporter_options* options,
                                             gradwarden_ranks* ranks,
                                             gradwarden_reporter** reporter) {
  if (options == nullptr) return null_argument(__func__, "options");
  if (ranks == nullptr) return null_argument(__func__, "ranks");
  if (reporter == nullptr) return null_argument(__func__, "reporter");
  return guarded([&] {
    *reporter = new gradwarden_reporter{std::make_unique<gradwarden::Reporter>(
        gradwarden::c_api::reporter_options(*options), *ranks->ranks)};
    return GRADWARDEN_OK;
  });
}

gradwarden_status gradwarden_reporter_mark_checkpoint(gradwarden_reporter* reporter,
                                                      uint64_t step) {
  if (reporter == nullptr) return null_argument(__func__, "reporter");
  return guarded([&] {
    reporter->reporter->mark_checkpoint(step);
    return GRADWARDEN_OK;
  });
}

void gradwarden_reporter_destroy(gradwarden_reporter* reporter) { delete reporter; }

// ---- guard -------------------------------------------------------------------------------------

gradwarden_status gradwarden_guard_create(const gradwarden_guard_options* options,
                                          gradwarden_ranks* ranks, gradwarden_reporter* reporter,
                                          gradwarden_guard** guard) {
  if (options == nullptr) return null_argument(__func__, "options");
  if (ranks == nullptr) return null_argument(__func__, "ranks");
  if (guard == nullptr) return null_argument(__func__, "guard");
  return guarded([&] {
    gradwarden::StepSink* sink = reporter != nullptr ? reporter->reporter.get() : nullptr;
    auto made = std::make_unique<gradwarden::Guard>(gradwarden::c_api::guard_options(*options),
                                                    *ranks->ranks, sink);
    *guard = new gradwarden_guard{std::move(made)};
    return GRADWARDEN_OK;
  });
}

void gradwarden_guard_destroy(gradwarden_guard* guard) { delete guard; }

gradwarden_status gradwarden_guard_bind(gradwarden_guard* guard, const gradwarden_shard* shards,
                                        size_t shard_count, const gradwarden_shard* local,
                                        size_t local_count) {
  gradwarden_bindings bindings{};
  bindings.struct_size = sizeof bindings;
  bindings.gradients = shards;
  bindings.gradient_count = shard_count;
  bindings.local = local;
  bindings.local_count = local_count;
  return gradwarden_guard_bind_all(guard, &bindings);
}

gradwarden_status gradwarden_guard_bind_all(gradwarden_guard* guard,
                                            const gradwarden_bindings* bindings) {
  using gradwarden::c_api::shards_of;
  if (guard == nullptr) return null_argument(__func__, "guard");
  return guarded([&] {
    gradwarden_bindings given{};
    given.gradient_count =
        1;  // null bindings are refused as a null array is, on all ranks together
    if (bindings != nullptr) {
      std::memcpy(&given, bindings, std::min(bindings->struct_size, sizeof given));
    }
    const auto gradients = shards_of(given.gradients, given.gradient_count);
    const auto local = shards_of(given.local, given.local_count);
    const auto parameters = shards_of(given.parameters, given.parameter_count);
    const auto lists = gradwarden::c_api::lists_of(given.others, given.other_count);
    std::vector<gradwarden::TensorList> others;
    others.reserve(lists.size());
    for (const auto& [name, shards] : lists) others.push_back({name, shards});
    guard->bound = false;
    guard->guard->bind({gradients, local, parameters, others});
    guard->bound = true;
    return GRADWARDEN_OK;
  });
}

gradwarden_status gradwarden_guard_observe_local(gradwarden_guard* guard) {
  if (guard == nullptr) return null_argument(__func__, "guard");
  if (!guard->bound) return fail(GRADWARDEN_NOT_BOUND, "call gradwarden_guard_bind first");
  guard->guard->observe_local();
  return GRADWARDEN_OK;
}

gradwarden_status gradwarden_guard_step(gradwarden_guard* guard, const gradwarden_step_input* input,
                                        gradwarden_step_outcome* outcome) {
  if (guard == nullptr) return null_argument(__func__, "guard");
  if (input == nullptr) return null_argument(__func__, "input");
  if (outcome == nullptr) return null_argument(__func__, "outcome");
  if (!guard->bound) return fail(GRADWARDEN_NOT_BOUND, "call gradwarden_guard_bind first");
  if (input->batch_ids == nullptr && input->batch_id_count != 0) {
    return null_argument(__func__, "input->batch_ids");
  }
  // On the stack: the step path does not allocate. What the wire cannot carry is left out there
  // too.
  constexpr std::size_t kMaxBatchIds = 64;
  std::string_view ids[kMaxBatchIds];
  std::size_t count = 0;
  for (; count < input->batch_id_count && count < kMaxBatchIds; ++count) {
    if (input->batch_ids[count] == nullptr) return null_argument(__func__, "a batch id");
    ids[count] = input->batch_ids[count];
  }
  return guarded([&] {
    gradwarden::StepInput step;
    step.step = input->step;
    step.loss = gradwarden::c_api::optional_of(input->loss);
    step.learning_rate = gradwarden::c_api::optional_of(input->learning_rate);
    step.loss_scale = gradwarden::c_api::optional_of(input->loss_scale);
    step.batch_ids = {ids, count};
    *outcome = gradwarden::c_api::outcome_of(guard->guard->step(step));
    return GRADWARDEN_OK;
  });
}

gradwarden_status gradwarden_guard_save_state(const gradwarden_guard* guard, void* bytes,
                                              size_t* size) {
  if (guard == nullptr) return null_argument(__func__, "guard");
  if (size == nullptr) return null_argument(__func__, "size");
  return guarded([&] {
    const std::vector<std::byte> state = guard->guard->save_state();
    const std::size_t room = bytes != nullptr ? *size : 0;
    *size = state.size();
    if (bytes == nullptr || room < state.size()) {
      return fail(GRADWARDEN_BUFFER_TOO_SMALL,
                  "the guard's state needs " + std::to_string(state.size()) +
                      " bytes; there is room for " + std::to_string(room));
    }
    std::memcpy(bytes, state.data(), state.size());
    return GRADWARDEN_OK;
  });
}

gradwarden_status gradwarden_guard_restore_state(gradwarden_guard* guard, const void* bytes,
                                                 size_t size) {
  if (guard == nullptr) return null_argument(__func__, "guard");
  if (bytes == nullptr) return null_argument(__func__, "bytes");
  return guarded([&] {
    guard->guard->restore_state({static_cast<const std::byte*>(bytes), size});
    return GRADWARDEN_OK;
  });
}
