#include "gradwarden/step_record.h"

namespace gradwarden {

std::string_view to_string(Decision decision) {
  switch (decision) {
    case Decision::kApply:
      return "apply";
    case Decision::kClip:
      return "clip";
    case Decision::kReduce:
      return "reduce";
    case Decision::kSkip:
      return "skip";
  }
  return "unknown";
}

std::string_view to_string(Reason reason) {
  switch (reason) {
    case Reason::kWithinLimits:
      return "within_limits";
    case Reason::kMaxNorm:
      return "max_norm";
    case Reason::kNonFinite:
      return "non_finite";
    case Reason::kLossScaleOverflow:
      return "loss_scale_overflow";
    case Reason::kAbsoluteLimit:
      return "absolute_limit";
    case Reason::kRollingMean:
      return "rolling_mean";
    case Reason::kSkipLimit:
      return "skip_limit";
    case Reason::kCollectiveFailed:
      return "collective_failed";
    case Reason::kZScore:
      return "z_score";
    case Reason::kRobustZScore:
      return "robust_z_score";
    case Reason::kGroupMaxNorm:
      return "group_max_norm";
    case Reason::kAdaptiveClip:
      return "adaptive_clip";
  }
  return "unknown";
}

// A sink without a thread of its own.
bool StepSource::flight(std::uint64_t, FlightRecording&) { return false; }
bool StepSink::attach(StepSource&) { return false; }
void StepSink::detach(StepSource&) {}

}  // namespace gradwarden
