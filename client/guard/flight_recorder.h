// The flight recorder: statistics of each of this rank's tensors in the last steps, in memory that
// one thread writes while another may read.
//
// A slot is valid for a reader that finds the same sequence before and after it copied it. There
// are more slots than steps asked for, so that the writer does not run into a reader at once.
#ifndef GRADWARDEN_CLIENT_GUARD_FLIGHT_RECORDER_H_
#define GRADWARDEN_CLIENT_GUARD_FLIGHT_RECORDER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/flight_assembly.h"
#include "gradwarden/step_record.h"
#include "kernels/numerics/statistics.h"

namespace gradwarden::guard {

inline constexpr std::size_t kFlightSlots = 96;

// Of a rank with more shards (or stretches that replicas cut them into) the first are recorded: the
// recorder stays below 64 MiB.
inline constexpr std::size_t kMaxFlightTensors = 16384;

// The tensors of a recording.
std::vector<FlightTensor> flight_tensors(std::span<const Segment> segments);

// What is kept of one tensor's statistics.
FlightEntry flight_entry(const kernels::Statistics& s, double norm_type);

class FlightRecorder {
 public:
  // At bind, while nobody reads: allocates. No segments: off.
  void build(std::span<const Segment> segments);

  // The writer's. No lock, no allocation, no system call.
  void write(const FlightStep& step, std::span<const kernels::Statistics> statistics,
             double norm_type) noexcept;

  // The reader's: the steps up to the newest that has the number `last_step`. False if there is no
  // such step any more.
  bool read(std::uint64_t last_step, FlightRecording& out) const { return read(&last_step, out); }
  // All steps that it holds, up to kFlightSteps.
  bool read_newest(FlightRecording& out) const { return read(nullptr, out); }

 private:
  static constexpr std::size_t kStepWords = sizeof(FlightStep) / 8;
  static constexpr std::size_t kEntryWords = sizeof(FlightEntry) / 8;
  static_assert(sizeof(FlightStep) % 8 == 0 && sizeof(FlightEntry) % 8 == 0);

  struct Slot {
    std::atomic<std::uint64_t> sequence{0};  // 0: being written or never written
    std::unique_ptr<std::atomic<std::uint64_t>[]> words;
  };

  bool read(const std::uint64_t* last_step, FlightRecording& out) const;
  // Copies one step; false if it is not there (any more).
  bool copy(std::uint64_t sequence, FlightStep& step, FlightEntry* entries) const;

  std::vector<FlightTensor> tensors_;
  std::array<Slot, kFlightSlots> slots_;
  std::atomic<std::uint64_t> written_{0};  // sequence of the newest step
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_FLIGHT_RECORDER_H_
