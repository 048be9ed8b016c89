// The guard for gradients in GPU memory: statistics, collective, decision and action all run on the
// device, in the order of the trainer's stream. The host enqueues at most four kernels and one
// collective per step, whatever the number of tensors, and never waits; two kernels more with
// adaptive clipping, and in steps that audit or observe other lists some more and one collective.
//
//   gradwarden::NcclRanks ranks(communicator, stream);
//   gradwarden::DeviceGuard guard({.guard = {.max_norm = 1.0}}, ranks, &reporter);
//   guard.bind(shards, {}, stream);
//   ...
//   guard.step({.step = step, .loss_at = loss}, stream);
//   fused_adam(guard.found_inf(), guard.grad_scale(), ...);   // or: guard.wait(&outcome)
#ifndef GRADWARDEN_DEVICE_GUARD_H_
#define GRADWARDEN_DEVICE_GUARD_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gradwarden/device_collective.h"
#include "gradwarden/export.h"
#include "gradwarden/guard.h"
#include "gradwarden/step_record.h"
#include "gradwarden/tensor.h"

namespace gradwarden {

enum class DeviceAction : std::uint8_t {
  // A kernel scales the gradients (clip coefficient and loss scale in one factor). It does not
  // touch
  // them when the step is skipped or the factor is 1.
  kScaleGradients = 0,
  // Nothing is written: the optimizer reads found_inf() and grad_scale(), as fused ones do.
  kOptimizerScales = 1,
};

struct DeviceGuardOptions {
  // `threads` is not used. Steps are counted for audit_every, observe_others_every and local_every
  // by calls of step() outside of captures; graphs: see inspect() and observe_local().
  GuardOptions guard = {};
  DeviceAction action = DeviceAction::kScaleGradients;
};

// Of each pair, the pointer wins. Pointers are to device or mapped host memory of one value, read
// when the step runs on the device: what a captured graph needs, and what keeps a loss tensor from
// being waited for. Values are fixed when the step is enqueued (or captured).
struct DeviceStepInput {
  // The trainer's optimizer step. A captured step without step_at has this number in its first
  // replay and counts on from there. Beside step_at it joins batch_ids to the record.
  std::uint64_t step = 0;
  const std::int64_t* step_at = nullptr;
  std::optional<double> loss = {};
  const float* loss_at = nullptr;
  std::optional<double> learning_rate = {};
  const float* learning_rate_at = nullptr;
  std::optional<double> loss_scale = {};  // as in StepInput; <= 0 at loss_scale_at: none
  const float* loss_scale_at = nullptr;
  // Thresholds in place of those of GuardOptions; 0 turns the rule off. The same on every rank.
  const double* max_norm_at = nullptr;
  const double* skip_above_at = nullptr;
  const double* skip_above_rolling_mean_at = nullptr;
  std::span<const std::string_view> batch_ids = {};
};

// One per rank, for the device that was current at bind. Calls come from one thread, with that
// device current. bind and step are collective: every rank makes them in the same order. Memory
// that is handed in by pointer outlives the steps, and the graphs, that read it; host memory among
// it (thresholds above all) is rewritten only when no step that reads it is under way, so that all
// ranks see the same.
//
// A captured graph ends with the binding: capture again after bind(), and replay none after the
// guard or an own communicator is gone. A loop of replays makes no call that could fail; it asks
// health() now and then.
class GRADWARDEN_API DeviceGuard {
 public:
  // `ranks` and `sink` (may be null) outlive the guard. Throws Error if an option is out of range.
  DeviceGuard(const DeviceGuardOptions& options, DeviceCollective& ranks, StepSink* sink = nullptr);
  // A guard of a single GPU.
  explicit DeviceGuard(const DeviceGuardOptions& options, StepSink* sink = nullptr);
  // The steps enqueued must have ended; where a stalled communicator keeps them from it, the
  // trainer aborts that first. Hands their records to the sink.
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

  // As Guard::bind, of device memory. Allocates, copies and waits. Throws Error, on every rank
  // alike, on misuse and where ranks contradict each other. Parameters are read where adaptive
  // clipping, audits or signals want them, other lists for signals; these do not move while bound.
  void bind(const Bindings& bindings, cudaStream_t stream);
  void bind(std::span<const TensorShard> shards, std::span<const TensorShard> local,
            cudaStream_t stream) {
    bind(Bindings{shards, local, {}, {}}, stream);
  }

  // The gradients moved: `data` has the new address of each shard, in the order of bind. One small
  // copy, enqueued on `stream`; none where nothing changed. kBusy, and nothing done, while eight
  // earlier copies are still under way. Not while capturing.
  DeviceStatus update(std::span<void* const> data, cudaStream_t stream) noexcept;

  // The same of the parameters.
  DeviceStatus update_parameters(std::span<void* const> data, cudaStream_t stream) noexcept;

  // Enqueues statistics of the local gradients, before the reduction: two launches and one read, in
  // every local_every-th step by the count of step() calls since bind. While capturing always, so
  // that every replay observes.
  DeviceStatus observe_local(cudaStream_t stream) noexcept;

  // Enqueues the guard's step on `stream`. Can be captured into a graph. Anything but kOk says that
  // the guard cannot be relied on for this step: found_inf() and grad_scale() may be those of an
  // earlier one and are not to be used, and gradients may not have been clipped.
  DeviceStatus step(const DeviceStepInput& input, cudaStream_t stream) noexcept;

  // Enqueues now what audit_every and observe_others_every (those that are not 0) ask for, of
  // gradients, parameters and other lists as they are on `stream`; what it finds comes with the
  // record of the next step. For steps in graphs, which never inspect by themselves: between
  // replays, and collective, so made by all ranks alike. kInvalidArgument where both are 0.
  DeviceStatus inspect(cudaStream_t stream) noexcept;

  // Waits for the decision of the last step that was enqueued by step() or, in a graph, counted by
  // expect_replay(): for optimizers that know no found_inf. The one call here that waits; it calls
  // CUDA only to learn of errors.
  DeviceStatus wait(StepOutcome* outcome,
                    std::chrono::milliseconds timeout = std::chrono::minutes(10)) noexcept;

  // Before each replay of a captured step, on `stream`: that wait() expects it, and, for its
  // report, the time and the batches of `step`.
  void expect_replay(std::uint64_t step, cudaStream_t stream,
                     std::span<const std::string_view> batch_ids = {}) noexcept;

  // In device memory, written by each step: exactly 0 or 1; loss scale / clip coefficient, by which
  // the optimizer divides gradients; and by what to multiply this step's learning rate (below 1
  // only with SpikeAction::kReduceLearningRate). Null before bind, then fixed. found_inf is for the
  // optimizer alone: a loss scaler must not see it, or a spike would move the scale.
  const float* found_inf() const noexcept;
  const float* grad_scale() const noexcept;
  const float* learning_rate_factor() const noexcept;

  // As Guard::save_state and restore_state. Both wait for `stream`; no step is under way elsewhere.
  std::vector<std::byte> save_state(cudaStream_t stream) const;
  void restore_state(std::span<const std::byte> state, cudaStream_t stream);

  // As Guard::flight_recording. The device leaves what it learnt in pinned memory: no call of CUDA
  // is made, and what was recorded can be read after the context broke.
  FlightRecording flight_recording() const;

  // What no call has returned: errors of the communicator and stalls. kOk if there are none.
  DeviceStatus health() const noexcept;
  // Records that were overwritten before anybody read them, and so reached no sink.
  std::uint64_t lost_records() const noexcept;
  // What went wrong last, for people. Empty if nothing did.
  std::string last_error() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_DEVICE_GUARD_H_
