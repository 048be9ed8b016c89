#include "client/guard/flight_recorder.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace gradwarden::guard {
namespace {

// Each word is released and acquired, so that who reads a new one also reads that its slot is being
// written. Fences would do, but ThreadSanitizer does not know them.
template <typename T>
void store_words(const T& value, std::atomic<std::uint64_t>* words) {
  std::uint64_t raw[sizeof(T) / 8];
  std::memcpy(raw, &value, sizeof value);
  for (std::size_t i = 0; i < std::size(raw); ++i) {
    words[i].store(raw[i], std::memory_order_release);
  }
}

template <typename T>
void load_words(const std::atomic<std::uint64_t>* words, T& value) {
  std::uint64_t raw[sizeof(T) / 8];
  for (std::size_t i = 0; i < std::size(raw); ++i) {
    raw[i] = words[i].load(std::memory_order_acquire);
  }
  std::memcpy(&value, raw, sizeof value);
}

}  // namespace

std::vector<FlightTensor> flight_tensors(std::span<const Segment> segments) {
  std::vector<FlightTensor> tensors;
  for (const Segment& segment : segments.first(std::min(segments.size(), kMaxFlightTensors))) {
    tensors.push_back({segment.tensor, segment.offset, segment.count});
  }
  return tensors;
}

FlightEntry flight_entry(const kernels::Statistics& s, double norm_type) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  FlightEntry entry;
  entry.norm = kernels::norm_of(s.power_sum, s.max_abs, norm_type);
  entry.max_abs = static_cast<float>(s.max_abs);
  entry.non_finite_count = static_cast<std::uint32_t>(std::min(s.nan_count + s.inf_count, kMax));
  entry.zero_count = s.zero_count;
  return entry;
}

void FlightRecorder::build(std::span<const Segment> segments) {
  tensors_ = flight_tensors(segments);
  written_ = 0;
  const std::size_t words = kStepWords + tensors_.size() * kEntryWords;
  for (Slot& slot : slots_) {
    slot.sequence = 0;
    slot.words = std::make_unique<std::atomic<std::uint64_t>[]>(words);
  }
}

void FlightRecorder::write(const FlightStep& step, std::span<const kernels::Statistics> statistics,
                           double norm_type) noexcept {
  if (tensors_.empty() || statistics.size() < tensors_.size()) return;
  const std::uint64_t sequence = written_.load(std::memory_order_relaxed) + 1;
  Slot& slot = slots_[sequence % kFlightSlots];
  slot.sequence.store(0, std::memory_order_relaxed);
  std::atomic<std::uint64_t>* words = slot.words.get();
  store_words(step, words);
  words += kStepWords;
  for (const kernels::Statistics& s : statistics.first(tensors_.size())) {
    store_words(flight_entry(s, norm_type), words);
    words += kEntryWords;
  }
  slot.sequence.store(sequence, std::memory_order_release);
  written_.store(sequence, std::memory_order_release);
}

bool FlightRecorder::copy(std::uint64_t sequence, FlightStep& step, FlightEntry* entries) const {
  const Slot& slot = slots_[sequence % kFlightSlots];
  if (slot.sequence.load(std::memory_order_acquire) != sequence) return false;
  const std::atomic<std::uint64_t>* words = slot.words.get();
  load_words(words, step);
  words += kStepWords;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    load_words(words, entries[i]);
    words += kEntryWords;
  }
  return slot.sequence.load(std::memory_order_relaxed) == sequence;
}

bool FlightRecorder::read(const std::uint64_t* last_step, FlightRecording& out) const {
  const std::uint64_t newest = written_.load(std::memory_order_acquire);
  FlightAssembly assembly(tensors_, last_step);
  for (std::uint64_t s = newest; s > 0 && s + kFlightSlots > newest && !assembly.full(); --s) {
    assembly.add([&](FlightStep& step, FlightEntry* entries) { return copy(s, step, entries); });
  }
  return assembly.finish(out);
}

}  // namespace gradwarden::guard
