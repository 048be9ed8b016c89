// The guard: sits between backward() and optimizer.step(), and keeps one bad step from ruining the
// run.
//
//   gradwarden::Guard guard({.max_norm = 1.0, .skip_above_rolling_mean = 3.0}, ranks, &reporter);
//   guard.bind(shards);
//   ...
//   if (guard.step({.step = step, .loss = loss}).should_update()) optimizer.step();
#ifndef GRADWARDEN_GUARD_H_
#define GRADWARDEN_GUARD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

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

// The same on every rank; bind checks it.
struct GuardOptions {
  double max_norm = 0;                 // clip by global L2 norm; 0: off
  bool skip_non_finite = true;         // skip a step with NaN or Inf among its gradients
  double skip_above = 0;               // skip above this grad norm; 0: off
  double skip_above_rolling_mean = 0;  // skip above this multiple (> 1) of the rolling mean; 0: off
  std::uint32_t window = 100;          // accepted steps in the rolling mean, 1 to 1024
  std::uint32_t warmup = 20;           // accepted steps before that rule acts, 1 to window
  std::uint32_t level_shift_after =
      20;  // consecutive spikes that, if stable, are the new level; 2 to 64
  std::uint32_t max_consecutive_skips = 10;  // then the fallback; 1 or more
  Fallback fallback = Fallback::kApplyClipped;
  bool shadow =
      false;  // decide and report, change nothing (a given loss scale is still divided out)
  unsigned threads = 1;  // that read gradients, the caller's included; 0: one per core
};

struct StepInput {
  std::uint64_t step = 0;  // the trainer's optimizer step
  std::optional<double> loss = {};
  std::optional<double> learning_rate = {};
  // The factor that the gradients carry, > 0. They are divided by it in the pass that clips;
  // non-finite gradients are then an overflow, the scaler's business, and leave window and skip
  // bound alone.
  std::optional<double> loss_scale = {};
  std::span<const std::string_view> batch_ids = {};
};

struct StepOutcome {
  Decision decision = Decision::kApply;
  Reason reason = Reason::kWithinLimits;
  double grad_norm = 0;  // unscaled, pre-clip, global; NaN if non-finite
  double clip_coefficient =
      1;  // what the gradients were (in shadow mode: would have been) multiplied by
  bool shadow = false;
  bool stop_requested = false;  // the bound on skips is used up and Fallback::kRequestStop is set

  // False: do not call optimizer.step(), so that parameters and moments stay as they are, bit for
  // bit.
  bool should_update() const { return shadow || decision != Decision::kSkip; }
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

  // Declares what step() will read and scale: this rank's shards of the reduced gradient. Ranks may
  // hold different tensors; bind forms the union, checks that every element of every tensor is on
  // some rank, and weights an element that r ranks hold by 1/r. `local` optionally declares this
  // rank's own whole gradients before the reduction, for observe_local(). Throws Error, on every
  // rank alike, on misuse and where ranks contradict each other. Binding again replaces the old
  // list and keeps the window.
  void bind(std::span<const TensorShard> shards, std::span<const TensorShard> local = {});

  // Takes statistics of the local gradients, before the reduction. Optional, any step; read once,
  // never written. Only this can tell one ill rank from all, or on which rank a NaN was born.
  void observe_local() noexcept;

  // Reads the reduced gradients once, agrees with the other ranks, decides, and acts: clips in
  // place, or leaves the gradients as they are. Needs a bind; without one it throws Error.
  // Afterwards it never throws.
  StepOutcome step(const StepInput& input);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_GUARD_H_
