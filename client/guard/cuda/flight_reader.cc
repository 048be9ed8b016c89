#include "client/guard/cuda/flight_reader.h"

#include <algorithm>
#include <cstring>

#include "client/guard/cuda/mapped_words.h"
#include "client/guard/flight_assembly.h"
#include "client/guard/flight_recorder.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::guard {
namespace {

using kernels::cuda::FlightHeader;
using kernels::cuda::FlightSums;
using kernels::cuda::kFlightRingSlots;

FlightEntry entry_of(const FlightSums& sums, double norm_type) {
  FlightEntry entry;
  entry.norm = kernels::norm_of(sums.power_sum, sums.power_sum, norm_type);
  entry.max_abs = sums.max_abs;
  entry.non_finite_count = sums.non_finite_count;
  entry.zero_count = sums.zero_count;
  return entry;
}

}  // namespace

void FlightReader::build(std::span<const Segment> segments, double norm_type,
                         const kernels::cuda::Progress* progress) {
  clear();  // what fails here leaves no half of a recorder
  std::vector<FlightTensor> tensors = flight_tensors(segments);
  const std::uint64_t slot_bytes = kernels::cuda::flight_slot_bytes(tensors.size());
  slots_ = PinnedMemory(tensors.empty() ? 0 : slot_bytes * kFlightRingSlots);
  slot_bytes_ = slot_bytes;
  norm_type_ = norm_type;
  progress_ = progress;
  tensors_ = std::move(tensors);
}

void FlightReader::clear() {
  tensors_.clear();
  progress_ = nullptr;
}

kernels::cuda::FlightRing FlightReader::ring() const {
  return {slots_.device<unsigned char>(), slot_bytes_, static_cast<std::uint32_t>(tensors_.size())};
}

bool FlightReader::copy(std::uint64_t fold, FlightStep& step, FlightEntry* entries) const {
  const unsigned char* slot = slots_.host<unsigned char>() + fold % kFlightRingSlots * slot_bytes_;
  if (acquire_word(reinterpret_cast<const FlightHeader*>(slot)->folds) != fold + 1) return false;
  const auto header = copy_words<FlightHeader>(slot);
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    entries[i] = entry_of(
        copy_words<FlightSums>(slot + sizeof(FlightHeader) + i * sizeof(FlightSums)), norm_type_);
  }
  step = {header.step, header.norm, static_cast<Decision>(header.decision),
          static_cast<Reason>(header.reason)};
  return relaxed_word(progress_->folded) < fold + kFlightRingSlots;
}

bool FlightReader::read(const std::uint64_t* last_step, FlightRecording& out) const {
  if (tensors_.empty()) return false;
  const std::uint64_t folded = acquire_word(progress_->folded);
  FlightAssembly assembly(tensors_, last_step);
  for (std::uint64_t fold = folded;
       fold > 0 && fold + kFlightRingSlots > folded && !assembly.full(); --fold) {
    assembly.add(
        [&](FlightStep& step, FlightEntry* entries) { return copy(fold - 1, step, entries); });
  }
  return assembly.finish(out);
}

}  // namespace gradwarden::guard
