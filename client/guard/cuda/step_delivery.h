// Brings the records of steps that ended on the device to the sink, and watches that they do end.
//
// drain() and flight() run on one thread at a time, the sink's or our own; they make no CUDA call.
// annotate() is the trainer's.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_STEP_DELIVERY_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_STEP_DELIVERY_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "client/guard/binding.h"
#include "client/guard/cuda/annotations.h"
#include "client/guard/cuda/flight_reader.h"
#include "client/guard/cuda/inspection_reader.h"
#include "client/guard/cuda/record_reader.h"
#include "client/guard/summary.h"
#include "gradwarden/device_collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/step_record.h"

namespace gradwarden::guard {

// The decision as the trainer sees it.
StepOutcome outcome_of(const kernels::cuda::StepResult& result, bool shadow);

class StepDelivery final : public StepSource {
 public:
  StepDelivery(DeviceCollective& ranks, const GuardOptions& options)
      : ranks_(ranks), options_(options) {}

  // At bind, while nobody drains. Throws Error.
  void build(const Binding& binding);

  void annotate(std::uint64_t step, std::span<const std::string_view> batch_ids) noexcept;
  void drain(StepSink& sink) noexcept override;
  bool flight(std::uint64_t last_step, FlightRecording& out) override {
    return flights_.read(last_step == kNewestStep ? nullptr : &last_step, out);
  }

  const RecordReader& records() const { return records_; }
  const FlightReader& flights() const { return flights_; }
  const InspectionReader& inspections() const { return inspections_; }
  DeviceStatus health() const noexcept { return health_; }
  std::uint64_t lost_records() const noexcept { return lost_; }

 private:
  using Clock = std::chrono::steady_clock;

  void watch() noexcept;
  bool next_record() noexcept;
  void submit(StepSink& sink) noexcept;
  void add_groups_and_ranks(StepRecord& record) noexcept;
  void list_own_findings(StepRecord& record) noexcept;

  DeviceCollective& ranks_;
  const GuardOptions& options_;  // the guard's
  RecordReader records_;
  FlightReader flights_;
  InspectionReader inspections_;
  Annotations annotations_;
  std::uint64_t element_count_ = 0;
  std::size_t group_count_ = 0;

  // The drainer's.
  std::uint64_t next_ = 1;  // sequence of the record to be read next
  std::vector<std::uint64_t> words_;
  GlobalStatistics global_;
  std::vector<NonFiniteTensor> own_;
  std::vector<std::string_view> batch_ids_;
  std::uint64_t waiting_for_ = 0;  // sequence that started and has not been decided
  Clock::time_point waiting_since_;

  std::atomic<DeviceStatus> health_{DeviceStatus::kOk};
  std::atomic<std::uint64_t> lost_{0};
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_STEP_DELIVERY_H_
