// What the guard hands on about a step, and to whom. The seam between guard and reporter: the guard
// knows no gRPC, the reporter no gradients.
#ifndef GRADWARDEN_STEP_RECORD_H_
#define GRADWARDEN_STEP_RECORD_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gradwarden/export.h"

namespace gradwarden {

// The values are those on the wire (proto/gradwarden/v1/report.proto).
enum class Decision : std::uint8_t { kApply = 1, kClip = 2, kReduce = 3, kSkip = 4 };

enum class Reason : std::uint8_t {
  kWithinLimits = 1,
  kMaxNorm = 2,
  kNonFinite = 3,
  kLossScaleOverflow = 4,
  kAbsoluteLimit = 5,
  kRollingMean = 6,
  kSkipLimit = 7,
  kCollectiveFailed = 8,
  kZScore = 9,
  kRobustZScore = 10,
  kGroupMaxNorm = 11,
};

// Lower-case words for logs and metrics: "apply", "rolling_mean".
GRADWARDEN_API std::string_view to_string(Decision decision);
GRADWARDEN_API std::string_view to_string(Reason reason);

// The non-finite elements that one rank found in one tensor.
struct NonFiniteTensor {
  std::uint32_t tensor = 0;  // index into RunShape::tensors
  std::uint32_t rank = 0;
  std::uint64_t index = 0;  // flat index of the first one in the whole tensor
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  bool local = false;  // seen before the reduction: born on this rank
};

// Fixed at bind; the same on every rank.
struct RunShape {
  std::vector<std::string> groups;
  std::vector<std::string> tensors;
  std::vector<std::uint32_t> group_of_tensor;
  std::uint32_t rank = 0;
  std::uint32_t world_size = 1;
  // The guard's settings, for the daemon's judgement; 0 means off.
  double max_norm = 0;
  double skip_above_rolling_mean = 0;
  std::uint32_t window = 0;
  std::uint32_t warmup = 0;
  std::uint32_t max_consecutive_skips = 0;
  bool skip_non_finite = true;
  bool shadow = false;
};

// One step. The spans point into the guard and are valid during the call only.
struct StepRecord {
  std::uint64_t step = 0;
  std::uint64_t time_unix_ns = 0;  // 0: when it is submitted
  double grad_norm = 0;            // unscaled, pre-clip, global; NaN if non-finite
  double clip_coefficient = 1;
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
  bool shadow = false;
  double rolling_mean = 0;
  double threshold = 0;
  double clip_threshold = 0;  // that applied to this step; 0: none
  double learning_rate_factor = 1;
  std::uint32_t broken_rules = 0;  // 1 << Reason of each rule that the step broke, acting or not
  std::optional<double> loss;
  std::optional<double> learning_rate;
  std::optional<double> loss_scale;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  std::uint64_t element_count = 0;
  double max_abs = 0;
  std::span<const double> group_norms;
  std::span<const double> group_max_abs;
  std::span<const std::uint64_t> group_nan_counts;
  std::span<const std::uint64_t> group_inf_counts;
  std::span<const std::uint64_t> group_zero_counts;
  std::span<const double> shard_norms;                     // by rank
  std::span<const double> local_norms;                     // by rank; empty if not observed
  std::span<const std::uint64_t> local_non_finite_counts;  // by rank; empty if not observed
  std::span<const NonFiniteTensor> non_finite;
  std::span<const std::string_view> batch_ids;
};

class StepSink;

// A guard whose steps end on a device, some time after the call that enqueued them.
class GRADWARDEN_API StepSource {
 public:
  virtual ~StepSource() = default;
  // Submits to `sink` the records of the steps that ended since the last call. Called by one thread
  // at a time. Never waits.
  virtual void drain(StepSink& sink) noexcept = 0;
};

class GRADWARDEN_API StepSink {
 public:
  virtual ~StepSink() = default;
  // Called by the guard's bind on every rank. May allocate and throw Error.
  virtual void begin(const RunShape& shape) = 0;
  // Called by the guard in every step on every rank: no lock, no allocation, no system call, never
  // waits.
  virtual void submit(const StepRecord& record) noexcept = 0;
  // Until detach(), call source.drain(*this) every few milliseconds from a thread of the sink's
  // own, which is then the one that submits. False: this sink has no such thread.
  virtual bool attach(StepSource& source);
  // Returns when drain() runs no more.
  virtual void detach(StepSource& source);
};

}  // namespace gradwarden

#endif  // GRADWARDEN_STEP_RECORD_H_
