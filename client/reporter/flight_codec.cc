#include "client/reporter/flight_codec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "client/reporter/record_codec.h"
#include "gradwarden/v1/report.pb.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

// Tensors are left out only where fewer steps than these would be left: the event, what was normal
// before it, and how it grew.
constexpr std::size_t kFewSteps = 8;
// Bounds on what protobuf adds to the values: tags and lengths.
constexpr std::size_t kMessageBytes = 64;
constexpr std::size_t kTensorBytes = 32;
constexpr std::size_t kStepBytes = 64;
constexpr std::size_t kValueBytes = 2 * sizeof(float);

std::size_t varint_bytes(std::uint32_t value) {
  std::size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

std::span<const FlightEntry> entries_of(const FlightRecording& recording, std::size_t step) {
  const std::size_t tensors = recording.tensors.size();
  return std::span(recording.entries).subspan(step * tensors, tensors);
}

std::string_view name_of(const FlightTensor& tensor, const RunShape& shape) {
  if (tensor.tensor >= shape.tensors.size()) return {};
  return cut(shape.tensors[tensor.tensor], limits::kMaxTensorNameBytes);
}

// Statistics are of finite elements; those of doubles may lie beyond a float.
float saturated(double value) {
  constexpr float kLargest = std::numeric_limits<float>::max();
  return value < static_cast<double>(kLargest) ? static_cast<float>(value) : kLargest;
}

// How much a tensor has to tell: what is not finite first, then by how much the last step stands
// out from the one before it.
double weight_of(const FlightRecording& recording, std::size_t tensor) {
  const std::size_t steps = recording.steps.size();
  const FlightEntry& last = entries_of(recording, steps - 1)[tensor];
  if (last.non_finite_count != 0) return std::numeric_limits<double>::infinity();
  if (steps < 2) return last.norm;
  const double before = entries_of(recording, steps - 2)[tensor].norm;
  const double ratio = before > 0      ? last.norm / before
                       : last.norm > 0 ? std::numeric_limits<double>::max()
                                       : 0;
  return std::isfinite(ratio) ? ratio : std::numeric_limits<double>::max();
}

// The tensors to keep, in their order.
std::vector<std::size_t> choose_tensors(const FlightRecording& recording, const RunShape& shape,
                                        std::size_t max_bytes) {
  std::vector<std::size_t> chosen(recording.tensors.size());
  std::iota(chosen.begin(), chosen.end(), 0);
  const std::size_t steps = std::min(kFewSteps, recording.steps.size());
  const auto bytes_of = [&](std::size_t i) {
    return kTensorBytes + name_of(recording.tensors[i], shape).size() + steps * (kValueBytes + 5);
  };
  std::size_t left = max_bytes - std::min(max_bytes, kMessageBytes + steps * kStepBytes);
  std::size_t bytes = 0;
  for (const std::size_t i : chosen) bytes += bytes_of(i);
  if (bytes <= left && chosen.size() <= limits::kMaxFlightTensors) return chosen;
  std::vector<double> weights(chosen.size());
  for (const std::size_t i : chosen) weights[i] = weight_of(recording, i);
  std::stable_sort(chosen.begin(), chosen.end(),
                   [&](std::size_t a, std::size_t b) { return weights[a] > weights[b]; });
  std::size_t count = 0;
  while (count < std::min(chosen.size(), limits::kMaxFlightTensors) &&
         bytes_of(chosen[count]) <= left) {
    left -= bytes_of(chosen[count++]);
  }
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::size_t step_bytes(std::span<const FlightEntry> entries, std::span<const std::size_t> tensors) {
  std::size_t counts = 0;
  bool any = false;
  for (const std::size_t i : tensors) {
    counts += varint_bytes(entries[i].non_finite_count);
    any = any || entries[i].non_finite_count != 0;
  }
  return kStepBytes + tensors.size() * kValueBytes + (any ? counts : 0);
}

void encode_step(const FlightStep& step, std::span<const FlightEntry> entries,
                 std::span<const std::size_t> tensors, v1::FlightRecording::Step& out) {
  out.set_step(step.step);
  out.set_grad_norm(step.grad_norm);
  out.set_decision(static_cast<v1::Decision>(step.decision));
  out.set_reason(static_cast<v1::Reason>(step.reason));
  bool any = false;
  for (const std::size_t i : tensors) {
    out.add_norms(saturated(entries[i].norm));
    out.add_max_abs(saturated(entries[i].max_abs));
    any = any || entries[i].non_finite_count != 0;
  }
  if (!any) return;
  for (const std::size_t i : tensors) out.add_non_finite_counts(entries[i].non_finite_count);
}

}  // namespace

void end_at(FlightRecording& recording, std::uint64_t last_step) {
  while (!recording.steps.empty() && recording.steps.back().step > last_step) {
    recording.steps.pop_back();
  }
  recording.entries.resize(recording.steps.size() * recording.tensors.size());
}

void encode_flight(const FlightRecording& recording, const RunShape& shape, std::size_t max_bytes,
                   v1::FlightRecording& out) {
  const std::size_t steps = recording.steps.size();
  if (steps == 0 || recording.entries.size() != steps * recording.tensors.size()) return;
  const std::vector<std::size_t> tensors = choose_tensors(recording, shape, max_bytes);
  std::size_t bytes = kMessageBytes;
  for (const std::size_t i : tensors) {
    const FlightTensor& tensor = recording.tensors[i];
    v1::FlightRecording::Tensor& entry = *out.add_tensors();
    entry.set_name(std::string(name_of(tensor, shape)));
    entry.set_index(tensor.index);
    entry.set_element_count(tensor.count);
    bytes += kTensorBytes + entry.name().size();
  }
  std::size_t first = steps;
  while (first > 0 && steps - first < limits::kMaxFlightSteps) {
    bytes += step_bytes(entries_of(recording, first - 1), tensors);
    if (bytes > max_bytes) break;
    --first;
  }
  for (std::size_t i = first; i < steps; ++i) {
    encode_step(recording.steps[i], entries_of(recording, i), tensors, *out.add_steps());
  }
  out.set_steps_left_out(static_cast<std::uint32_t>(first));
  out.set_tensors_left_out(static_cast<std::uint32_t>(recording.tensors.size() - tensors.size()));
}

}  // namespace gradwarden::reporter
