#include <cmath>
#include <utility>

#include "proto/rules.h"

namespace gradwarden::rules {
namespace {

Problem check_non_finite(const v1::Report& report, const AttemptShape& shape) {
  if (Problem found =
          check_entries("non_finite", report.non_finite_size(), limits::kMaxNonFinitePerReport)) {
    return found;
  }
  for (const v1::NonFinite& entry : report.non_finite()) {
    if (Problem found = check_text("non_finite.tensor", entry.tensor(), limits::kMaxTensorNameBytes,
                                   Empty::kAllowed)) {
      return found;
    }
    if (Problem found = check_rank("non_finite.rank", entry.rank(), shape.world_size)) return found;
    if (Problem found = check_group("non_finite.group", entry.group(), shape.groups)) return found;
  }
  return {};
}

Problem check_batch_ids(const v1::Report& report) {
  if (Problem found = check_entries("batch_ids", report.batch_ids_size(), limits::kMaxBatchIds)) {
    return found;
  }
  for (const std::string& id : report.batch_ids()) {
    if (Problem found = check_text("batch_ids", id, limits::kMaxBatchIdBytes, Empty::kAllowed)) {
      return found;
    }
  }
  return {};
}

Problem check_mismatch(const v1::ReplicaMismatch& mismatch, const AttemptShape& shape) {
  if (Problem found = check_text("mismatches.tensor", mismatch.tensor(),
                                 limits::kMaxTensorNameBytes, Empty::kAllowed)) {
    return found;
  }
  if (Problem found = check_text("mismatches.signal", mismatch.signal(),
                                 limits::kMaxSignalNameBytes, Empty::kRefused)) {
    return found;
  }
  if (Problem found = check_group("mismatches.group", mismatch.group(), shape.groups)) return found;
  if (Problem found =
          check_entries("mismatches.ranks", mismatch.ranks_size(), limits::kMaxMismatchRanks)) {
    return found;
  }
  for (const std::uint32_t rank : mismatch.ranks()) {
    if (Problem found = check_rank("mismatches.ranks", rank, shape.world_size)) return found;
  }
  if (mismatch.rank_count() > shape.world_size ||
      mismatch.rank_count() < static_cast<std::uint32_t>(mismatch.ranks_size())) {
    return problem("mismatches.rank_count", mismatch.rank_count(),
                   "from the " + std::to_string(mismatch.ranks_size()) +
                       " entries of ranks to world_size " + std::to_string(shape.world_size));
  }
  if (mismatch.relative_difference() < 0) {
    return problem("mismatches.relative_difference", mismatch.relative_difference(),
                   "0 or more, NaN or Inf");
  }
  return {};
}

Problem check_audit(const v1::Report& report, const AttemptShape& shape) {
  if (Problem found =
          check_entries("mismatches", report.mismatches_size(), limits::kMaxMismatchesPerReport)) {
    return found;
  }
  for (const v1::ReplicaMismatch& mismatch : report.mismatches()) {
    if (Problem found = check_mismatch(mismatch, shape)) return found;
  }
  return {};
}

Problem check_signals(const v1::Report& report, const AttemptShape& shape) {
  if (Problem found = check_entries("signals", report.signals_size(), limits::kMaxSignals)) {
    return found;
  }
  for (const v1::SignalStatistics& signal : report.signals()) {
    if (Problem found = check_text("signals.name", signal.name(), limits::kMaxSignalNameBytes,
                                   Empty::kRefused)) {
      return found;
    }
    if (signal.norm() < 0) return problem("signals.norm", signal.norm(), "0 or more, NaN or Inf");
    if (!(signal.max_abs() >= 0)) return problem("signals.max_abs", signal.max_abs(), "0 or more");
    if (Problem found = check_size("signals.group_norms", signal.group_norms_size(), shape.groups,
                                   "group of the Hello")) {
      return found;
    }
    if (Problem found = check_no_negative("signals.group_norms", signal.group_norms())) {
      return found;
    }
  }
  return {};
}

Problem check_flight_step(const v1::FlightRecording::Step& step, int tensors) {
  if (Problem found = check_step("flight.steps.step", step.step())) return found;
  if (step.grad_norm() < 0) {
    return problem("flight.steps.grad_norm", step.grad_norm(), "0 or more, NaN or Inf");
  }
  const auto per_tensor = [tensors](std::string_view field, int size) {
    const bool good = size == tensors;
    return good ? Problem()
                : problem(field, std::to_string(size) + " entries",
                          std::to_string(tensors) + " (one per entry of flight.tensors)");
  };
  if (Problem found = per_tensor("flight.steps.norms", step.norms_size())) return found;
  if (Problem found = per_tensor("flight.steps.max_abs", step.max_abs_size())) return found;
  if (step.non_finite_counts_size() != 0) {
    if (Problem found =
            per_tensor("flight.steps.non_finite_counts", step.non_finite_counts_size())) {
      return found;
    }
  }
  const std::pair<std::string_view, const google::protobuf::RepeatedField<float>*> values[] = {
      {"flight.steps.norms", &step.norms()}, {"flight.steps.max_abs", &step.max_abs()}};
  for (const auto& [field, numbers] : values) {
    for (const float value : *numbers) {
      if (!(value >= 0 && std::isfinite(value))) {
        return problem(field, value, "0 or more and finite: of the finite elements");
      }
    }
  }
  return {};
}

Problem check_flight(const v1::Report& report) {
  if (!report.has_flight()) return {};
  const v1::FlightRecording& flight = report.flight();
  const std::size_t bytes = flight.ByteSizeLong();
  if (bytes > limits::kMaxFlightBytes) {
    return problem("flight", std::to_string(bytes) + " bytes",
                   up_to(limits::kMaxFlightBytes, "bytes; leave out the oldest steps"));
  }
  if (Problem found =
          check_entries("flight.tensors", flight.tensors_size(), limits::kMaxFlightTensors)) {
    return found;
  }
  if (Problem found = check_entries("flight.steps", flight.steps_size(), limits::kMaxFlightSteps)) {
    return found;
  }
  for (const v1::FlightRecording::Tensor& tensor : flight.tensors()) {
    if (Problem found = check_text("flight.tensors.name", tensor.name(),
                                   limits::kMaxTensorNameBytes, Empty::kAllowed)) {
      return found;
    }
  }
  for (const v1::FlightRecording::Step& step : flight.steps()) {
    if (Problem found = check_flight_step(step, flight.tensors_size())) return found;
  }
  return {};
}

}  // namespace

Problem check_findings(const v1::Report& report, const AttemptShape& shape) {
  if (Problem found = check_non_finite(report, shape)) return found;
  if (Problem found = check_audit(report, shape)) return found;
  if (Problem found = check_signals(report, shape)) return found;
  if (Problem found = check_checkpoints(report.checkpoint_steps())) return found;
  if (Problem found = check_flight(report)) return found;
  return check_batch_ids(report);
}

}  // namespace gradwarden::rules
