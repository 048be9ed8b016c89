#include "client/guard/run_shape.h"

namespace gradwarden::guard {

RunShape run_shape(const Binding& binding, const GuardOptions& options, const Collective& ranks) {
  RunShape shape;
  shape.groups = binding.groups;
  shape.tensors = binding.tensors;
  shape.group_of_tensor = binding.group_of_tensor;
  for (const BoundList& list : binding.others) shape.signals.push_back(list.name);
  shape.rank = static_cast<std::uint32_t>(ranks.rank());
  shape.world_size = static_cast<std::uint32_t>(ranks.size());
  shape.max_norm = options.max_norm;
  shape.skip_above_rolling_mean = options.skip_above_rolling_mean;
  shape.window = options.window;
  shape.warmup = options.warmup;
  shape.max_consecutive_skips = options.max_consecutive_skips;
  shape.skip_non_finite = options.skip_non_finite;
  shape.shadow = options.shadow;
  return shape;
}

}  // namespace gradwarden::guard
