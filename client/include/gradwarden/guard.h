// The guard: sits between backward() and optimizer.step(), and keeps one bad step from ruining the
// run.
//
//   gradwarden::Guard guard({.max_norm = 1.0, .skip_above_rolling_mean = 3.0}, ranks, &reporter);
//   guard.bind(shards);
//   ...
//   if (guard.step({.step = step, .loss = loss}).should_update()) optimizer.step();
#ifndef GRADWARDEN_GUARD_H_
#define GRADWARDEN_GUARD_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/export.h"
#include "gradwarden/step_record.h"
#include "gradwarden/tensor.h"

namespace gradwarden {

enum class Fallback : std::uint8_t {
  kApplyClipped =
      0,  // take the step, clipped if max_norm is set, until the norm is back within limits
  kRequestStop = 1,  // go on skipping and set StepOutcome::stop_requested
};

// Where the threshold comes from above which gradients are clipped by global norm.
enum class ClipRule : std::uint8_t {
  kFixed = 0,        // max_norm
  kRollingMean = 1,  // clip_value (> 0) times the mean of the window
  kZScore = 2,  // clip_value (> 0) deviations above the exponential average: ZClip's rule (arXiv
                // 2504.02507), which here does not lock in on a level that is gone
  kPercentile = 3,  // the clip_value-th percentile (0 to 100) of the window: AutoClip's rule (arXiv
                    // 2007.14469) over a bounded window
};

// What follows when a norm is above a limit. A non-finite step is always skipped.
enum class SpikeAction : std::uint8_t {
  kSkip = 0,
  kReduceLearningRate = 1,  // apply it; the trainer multiplies this step's learning rate by
                            // StepOutcome::learning_rate_factor
};

// For the groups whose name matches; of several rules the first that matches counts.
struct GroupRule {
  std::string pattern = {};  // with * and ?, as in file names; must match a group
  double max_norm = 0;       // clip the group by its own norm; 0: off
  double value_limit = 0;    // clamp its elements to +-this after clipping; 0: off
  // Adaptive clipping of each of its tensors, in place of GuardOptions::adaptive_clip; 0: off.
  std::optional<double> adaptive_clip = {};
};

// The same on every rank; bind checks it.
struct GuardOptions {
  double max_norm = 0;  // clip by global norm; 0: off. Beside another clip_rule: the upper bound of
                        // its threshold, and the threshold during warm-up
  ClipRule clip_rule = ClipRule::kFixed;
  double clip_value = 0;
  double norm_type = 2;    // p > 0 or infinity
  double value_limit = 0;  // clamp elements to +-this after clipping; 0: off
  // Adaptive gradient clipping (arXiv 2102.06171), per tensor: a gradient's norm is kept within
  // this multiple of its parameter's norm. Needs Bindings::parameters. 0: off.
  double adaptive_clip = 0;
  double adaptive_clip_least_norm = 1e-3;   // what a smaller parameter norm counts as, above 0
  std::vector<GroupRule> group_rules = {};  // of all coefficients the smallest applies
  bool skip_non_finite = true;              // skip a step with NaN or Inf among its gradients
  double skip_above = 0;                    // skip above this grad norm; 0: off
  double skip_above_rolling_mean = 0;  // skip above this multiple (> 1) of the rolling mean; 0: off
  double skip_above_z = 0;             // skip above this z-score of the exponential average; 0: off
  // Skip where the logarithm of the norm is this many robust deviations (median absolute deviation)
  // above its median in the window; 0: off.
  double skip_above_robust_z = 0;
  SpikeAction on_spike = SpikeAction::kSkip;  // in place of "skip" in the four above
  double least_learning_rate_factor = 0.1;    // above 0, at most 1
  std::uint32_t window = 100;                 // accepted steps in the rolling mean, 1 to 1024
  std::uint32_t warmup = 20;                  // accepted steps before these rules act, 1 to window
  double ema_decay = 0.97;                    // of the exponential average, above 0 and below 1
  std::uint32_t level_shift_after =
      20;  // consecutive spikes that, if stable, are the new level; 2 to 64
  std::uint32_t max_consecutive_skips = 10;  // then the fallback; 1 or more
  Fallback fallback = Fallback::kApplyClipped;
  bool shadow =
      false;  // decide and report, change nothing (a given loss scale is still divided out)
  std::uint32_t local_every = 1;  // observe_local() reads in every n-th step, 1 or more
  // In every n-th step after bind; 0: never. The audit compares the replicas of gradients and
  // parameters between the ranks that hold them; the other is statistics of Bindings::parameters
  // and Bindings::others as signals of their own.
  std::uint32_t audit_every = 0;
  std::uint32_t observe_others_every = 0;
  // Of the norms of replicas that are not declared identical; more is reported as information.
  // Their norms alone are compared: declare identical what is, so that every bit is.
  double audit_tolerance = 1e-3;
  bool flight_recorder = true;  // keep the last 64 steps of statistics of each tensor
  unsigned threads = 1;         // that read gradients, the caller's included; 0: one per core
};

struct StepInput {
  std::uint64_t step = 0;  // the trainer's optimizer step
  std::optional<double> loss = {};
  std::optional<double> learning_rate = {};
  // The factor that the gradients carry, > 0. They are divided by it in the pass that clips;
  // non-finite gradients are then an overflow, the scaler's business, and leave window and skip
  // bound alone.
  std::optional<double> loss_scale = {};
  // They were divided by loss_scale before this step, which is then reported, and says that
  // non-finite gradients are the scaler's business.
  bool unscaled = false;
  // The optimizer divides the gradients, as fused ones do, by StepOutcome::grad_scale; they are
  // left as they are. Where groups or tensors have coefficients of their own, or elements are
  // clamped, one number does not say it all: the gradients are then scaled here as ever.
  bool optimizer_scales = false;
  std::span<const std::string_view> batch_ids = {};
};

struct StepOutcome {
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
  // Unscaled, pre-clip, global; NaN if non-finite. With kCollectiveFailed this rank's alone.
  double grad_norm = 0;
  double clip_coefficient =
      1;  // what the gradients were (in shadow mode: would have been) multiplied by
  double learning_rate_factor = 1;    // below 1 only under Decision::kReduce
  std::uint32_t clipped_groups = 0;   // that a GroupRule shrank more than that
  std::uint32_t clipped_tensors = 0;  // that adaptive clipping shrank more than that
  // What the gradients are still to be divided by; other than 1 only with optimizer_scales.
  double grad_scale = 1;
  bool shadow = false;
  bool stop_requested = false;  // the bound on skips is used up and Fallback::kRequestStop is set

  // False: do not call optimizer.step(), so that parameters and moments stay as they are, bit for
  // bit.
  bool should_update() const { return shadow || decision != Decision::kSkip; }
};

// For gradients that the host cannot reach, in the memory of a device that has no guard of its own:
// the caller reads and scales them, and the guard does what lies between. bind() is then given the
// device's addresses, which are only compared with null.
struct Stretch {            // of one of the shards that bind() was given
  std::uint32_t shard = 0;  // its position among them
  std::uint64_t begin = 0;  // the first element, in that shard
  std::uint64_t count = 0;
};
struct StretchStatistics {  // of one pass over its elements
  double power_sum = 0;     // of |g|^norm_type over the finite ones; 0 for a norm_type of infinity
  double max_abs = 0;       // the largest finite |g|
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  std::uint64_t first_non_finite = ~std::uint64_t{0};  // its index in the stretch
};
struct StretchScaling {  // what the caller is to do to its elements
  double factor = 1;     // multiply; 1: leave them as they are
  double limit = 0;      // then clamp to +-limit; 0: not
};

// What a guard reads. Every list names tensors of `gradients`, and may be cut into shards in a way
// of its own. Data outlives the binding; descriptions are copied.
struct Bindings {
  std::span<const TensorShard> gradients = {};  // reduced: what step() reads and scales
  // This rank's own whole gradients before the reduction, for observe_local().
  std::span<const TensorShard> local = {};
  std::span<const TensorShard> parameters = {};  // never written
  std::span<const TensorList> others = {};       // never written
};

// One per rank. All calls come from one thread; bind and step are collective (every rank makes them
// in the same order).
class GRADWARDEN_API Guard {
 public:
  // `ranks` and `sink` (may be null) outlive the guard. Throws Error if an option is out of range.
  Guard(const GuardOptions& options, Collective& ranks, StepSink* sink = nullptr);
  ~Guard();
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

  // Declares what step() will read and scale. Ranks may hold different tensors; bind forms the
  // union, checks that every element of every tensor is on some rank, and weights an element that r
  // ranks hold by 1/r. Throws Error, on every rank alike, on misuse and where ranks contradict each
  // other. Binding again replaces the old lists and keeps the window.
  void bind(const Bindings& bindings);
  void bind(std::span<const TensorShard> gradients, std::span<const TensorShard> local = {}) {
    bind(Bindings{gradients, local, {}, {}});
  }

  // The gradients moved: `data` has the new address of each shard, in the order of bind. Not
  // collective, and allocates nothing. Throws Error, and changes nothing, on misuse: no bind, a
  // call of this guard under way, another number of addresses than shards, or a null pointer for
  // one that has elements.
  void update_gradients(std::span<void* const> data);
  // The same of the local gradients, and of the parameters.
  void update_local(std::span<void* const> data);
  void update_parameters(std::span<void* const> data);

  // Takes statistics of the local gradients, before the reduction, in every local_every-th step.
  // Optional; read once, never written. Only this can tell one ill rank from all, or on which rank
  // a NaN was born. Where the reduced gradient is the mean of the local ones, and those cover the
  // whole model, it also gives the gradient's noise scale.
  void observe_local() noexcept;

  // Reads the reduced gradients once, agrees with the other ranks, decides, and acts: clips in
  // place, or leaves the gradients as they are. Without a bind, or while another call of this guard
  // is under way, it throws Error; else never.
  StepOutcome step(const StepInput& input);

  // The same where the caller has read the gradients, and scales them after it: what it found in
  // each of stretches(), in their order, and what it is to do. Throws Error, too, where the numbers
  // of entries differ. Local gradients: one entry for each of those bound. An audit compares the
  // norms of such gradients alone.
  StepOutcome step(const StepInput& input, std::span<const StretchStatistics> found,
                   std::span<StretchScaling> to_do);
  void observe_local(std::span<const StretchStatistics> found);
  // The bound shards, cut where other ranks hold other parts of them. Fixed until the next bind.
  std::vector<Stretch> stretches() const;

  // What decides: windows, averages, counters; to be kept with the trainer's checkpoint. After
  // restore_state the guard decides, bit for bit, as the saved one would have. The bytes are
  // portable between machines and versioned. restore_state throws Error, and changes nothing, where
  // they are damaged, of a newer version, or of a guard with other windows.
  std::vector<std::byte> save_state() const;
  void restore_state(std::span<const std::byte> state);

  // What the flight recorder holds now, up to 64 steps; empty where it is off. A reporter fetches
  // it by itself when an event happens.
  FlightRecording flight_recording() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_GUARD_H_
