// What a Guard of host memory is made of. One step: read and summarize, exchange, decide, record,
// act (guard_step.cc); everything is sized at bind (guard.cc).
#ifndef GRADWARDEN_CLIENT_GUARD_GUARD_IMPL_H_
#define GRADWARDEN_CLIENT_GUARD_GUARD_IMPL_H_

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "client/guard/adaptive_clip.h"
#include "client/guard/audit.h"
#include "client/guard/binding.h"
#include "client/guard/flight_recorder.h"
#include "client/guard/other_tensors.h"
#include "client/guard/reading.h"
#include "client/guard/summary.h"
#include "gradwarden/guard.h"
#include "kernels/cpu/scale.h"
#include "kernels/numerics/decision.h"

namespace gradwarden {

struct Guard::Impl final : StepSource {
  // What this step's summary carries beside the groups, and where in it.
  struct Extras {
    bool audit = false;
    bool signals = false;
    std::size_t audit_at = 0;
    std::size_t signals_at = 0;
    std::size_t bytes = 0;  // of the whole summary
  };

  Impl(const GuardOptions& options, Collective& ranks, StepSink* sink);
  ~Impl() override;

  void bind(const Bindings& bindings);
  bool observes() const noexcept;
  void observe_local() noexcept;
  void observe_local(std::span<const StretchStatistics> found);
  // `found` and `to_do` are empty where the guard itself reads and scales.
  StepOutcome step(const StepInput& input, std::span<const StretchStatistics> found,
                   std::span<StretchScaling> to_do) noexcept;

  // The sink's thread: host steps are submitted by the trainer's own.
  void drain(StepSink&) noexcept override {}
  bool flight(std::uint64_t last_step, FlightRecording& out) override;

  void check_move(std::span<const guard::Segment> segments, std::size_t shard_count,
                  std::span<void* const> data, const char* call) const;
  void update_gradients(std::span<void* const> data);
  void update_local(std::span<void* const> data);
  void update_parameters(std::span<void* const> data);

  void plan();
  void begin_reporting();
  Extras extras_of(std::uint64_t of_sequence) const noexcept;
  void read(const Extras& extras, std::span<const StretchStatistics> found) noexcept;
  void summarize(const StepInput& input, const Extras& extras) noexcept;
  bool exchange(const StepInput& input, std::span<const StretchStatistics> found) noexcept;
  void take_extras(const Extras& extras) noexcept;
  bool non_finite() const noexcept { return global.nan_count + global.inf_count != 0; }
  kernels::StepVerdict decide(bool agreed) noexcept;
  StepOutcome outcome_of(const kernels::StepVerdict& verdict) const noexcept;
  void clip_groups(StepOutcome& outcome) noexcept;
  double coefficient_of(const guard::Segment& segment) const noexcept;
  double limit_of(const guard::Segment& segment) const noexcept;
  bool optimizer_scales(const StepInput& input, const StepOutcome& outcome) const noexcept;
  void act(const StepOutcome& outcome, std::span<StretchScaling> to_do) noexcept;
  void record(const StepInput& input, const StepOutcome& outcome,
              const kernels::StepVerdict& verdict) noexcept;
  std::span<const NonFiniteTensor> findings() noexcept;

  const GuardOptions options;
  const kernels::GuardPolicy policy;
  kernels::GuardState state;
  Collective& ranks;
  StepSink* const sink;
  kernels::ParallelFor threads;

  std::atomic<bool> busy{false};  // a call is under way
  guard::Binding binding;
  bool bound = false;
  bool observed = false;
  bool outside = false;             // the last step's gradients were read and scaled by the caller
  std::size_t parameter_count = 0;  // in the list given to bind
  std::uint64_t sequence = 0;       // steps since bind
  guard::Reading shards{threads};
  guard::Reading local{threads};
  guard::OtherTensors others{threads};
  guard::AdaptiveClip adaptive;
  guard::Audit audit{threads};
  guard::FlightRecorder recorder;
  bool recording = false;

  std::vector<kernels::Tensor> scaled;
  std::vector<kernels::Scaling> scalings;  // of `scaled`
  std::vector<kernels::GroupPolicy> group_policies;
  std::vector<double> group_coefficients;
  bool tensors_clip = false;  // in this step the adaptive coefficients apply
  std::vector<unsigned char> mine;
  std::vector<unsigned char> gathered;
  std::vector<guard::GroupSummary> groups;
  guard::GlobalStatistics global;
  guard::SignalTable signals;
  bool signals_taken = false;
  std::uint64_t audited = 0;  // regions compared in this step
  std::vector<ReplicaMismatch> mismatches;
  std::vector<NonFiniteTensor> own;
};

}  // namespace gradwarden

#endif  // GRADWARDEN_CLIENT_GUARD_GUARD_IMPL_H_
