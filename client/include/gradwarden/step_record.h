// What the guard hands on about a step, and to whom. The seam between guard and reporter: the guard
// knows no gRPC, the reporter no gradients.
#ifndef GRADWARDEN_STEP_RECORD_H_
#define GRADWARDEN_STEP_RECORD_H_

#include <array>
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
  kAdaptiveClip = 12,
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

// Replicas of the same elements that an audit found to differ.
struct ReplicaMismatch {
  static constexpr std::size_t kMaxRanks = 8;
  std::uint32_t tensor = 0;      // index into RunShape::tensors
  std::uint32_t signal = 0;      // 0: gradients; n: RunShape::signals[n - 1]
  std::uint64_t index = 0;       // flat index, in the whole tensor, of the first element compared
  std::uint64_t count = 0;       // elements compared
  std::uint32_t rank_count = 0;  // that differ from what most ranks hold (from the first, if equal)
  std::array<std::uint32_t, kMaxRanks> ranks{};  // the first of them, in order
  double relative_difference = 0;  // of the norms of these elements, at most; NaN: not finite
  bool declared_identical = true;  // false: within what rounding may do, or not declared identical
};

// One list of tensors beside the gradients (parameters, updates, moments) in one step.
struct SignalStatistics {
  std::uint32_t signal = 0;  // index into RunShape::signals
  double norm = 0;           // global; of the finite elements
  double max_abs = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  std::uint64_t element_count = 0;
};

// Fixed at bind; the same on every rank.
struct RunShape {
  std::vector<std::string> groups;
  std::vector<std::string> tensors;
  std::vector<std::uint32_t> group_of_tensor;
  std::vector<std::string> signals;  // names of the lists beside the gradients
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

  bool operator==(const RunShape&) const = default;
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
  // The noise scale of the gradient (arXiv 1812.06162), in batches of one rank, averaged over
  // steps: where the batch of all ranks is far below it, a larger batch would train faster.
  std::optional<double> gradient_noise_scale;
  std::uint64_t audited_replicas = 0;  // stretches that this step's audit compared; 0: no audit
  std::span<const ReplicaMismatch> mismatches;
  std::span<const SignalStatistics> signals;   // empty in steps that do not observe them
  std::span<const double> signal_group_norms;  // signals.size() x groups
  std::span<const std::string_view> batch_ids;
};

// The flight recorder: statistics of each tensor that this rank holds, in the last steps.
struct FlightTensor {
  std::uint32_t tensor = 0;  // index into RunShape::tensors
  std::uint64_t index = 0;   // flat index, in the whole tensor, of this rank's first element
  std::uint64_t count = 0;
};
struct FlightStep {
  std::uint64_t step = 0;
  double grad_norm = 0;  // NaN if non-finite
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
};
struct FlightEntry {
  double norm = 0;  // of this rank's finite elements, as they are: not unscaled
  float max_abs = 0;
  std::uint32_t non_finite_count = 0;  // saturates
  std::uint64_t zero_count = 0;
};
struct FlightRecording {
  std::vector<FlightTensor> tensors;
  std::vector<FlightStep> steps;     // the oldest first
  std::vector<FlightEntry> entries;  // steps.size() x tensors.size()
};

class StepSink;

// What a sink's own thread may ask of a guard.
class GRADWARDEN_API StepSource {
 public:
  virtual ~StepSource() = default;
  // Submits to `sink` the records of the steps that ended on a device since the last call. Called
  // by one thread at a time. Never waits.
  virtual void drain(StepSink& sink) noexcept = 0;
  // The flight recorder's steps up to and including `last_step` that are still there. Called by
  // one thread at a time, while the trainer's goes on. False, and nothing in `out`: none.
  virtual bool flight(std::uint64_t last_step, FlightRecording& out);
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
