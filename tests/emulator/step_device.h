// A step of the guard on the emulated GPU: the tables of a plan and the kernels' results in
// "device" memory, each in an allocation of its own so that AddressSanitizer guards its bounds.
//
// Used by one thread; the tensors' buffers stay their owner's and must outlive it.
#ifndef GRADWARDEN_TESTS_EMULATOR_STEP_DEVICE_H_
#define GRADWARDEN_TESTS_EMULATOR_STEP_DEVICE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/cuda/arguments.h"
#include "kernels/cuda/plan_tables.h"
#include "tests/emulator/launcher.h"
#include "tests/property/kernel_reference.h"

namespace gradwarden::kernels::cuda {

struct TestTensor {
  reference::Buffer* buffer;
  std::uint32_t group = 0;
  double weight = 1;
};

TensorEntry entry_of(const TestTensor& tensor, std::uint32_t id);

class StepDevice {
  // What kernels reach by pointer is on the heap, which the tests for real hardware put where a GPU
  // reaches it.
  struct Memory {
    GuardPolicy policy;
    GuardState state;
    StepCounters counters;
    StepResult result;
    std::uint32_t blocks_done = 0;
    float loss_scale = 0;
  };
  const std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();

 public:
  StepDevice(emulator::Launcher& launcher, std::span<const TestTensor> tensors,
             std::uint32_t group_count = 1);
  ~StepDevice();
  StepDevice(const StepDevice&) = delete;
  StepDevice& operator=(const StepDevice&) = delete;

  unsigned grid = 3;
  double p = 2;
  bool shadow = false;
  GuardPolicy& policy = memory_->policy;
  GuardState& state = memory_->state;
  const float* loss_scale = nullptr;        // read at each run
  std::vector<GroupPolicy> group_policies;  // empty: none

  void run_statistics();
  void run_fold(TensorKind kind = TensorKind::kShards);
  // Over summaries gathered from `world_size` ranks; the other form takes this rank's alone.
  void run_decide(const void* gathered, std::uint32_t world_size);
  void run_decide() { run_decide(summary_.data(), 1); }
  void run_apply();

  const std::vector<ChunkStatistics>& chunks() const { return chunks_; }
  const std::vector<Statistics>& tensors() const { return tensors_; }
  // This rank's summary, as 64-bit words.
  const std::vector<std::uint64_t>& summary() const { return summary_; }
  const RankHeader& header() const { return *reinterpret_cast<const RankHeader*>(summary_.data()); }
  const GroupSummary& group(std::uint32_t g) const { return groups_of(&header())[g]; }
  StepResult& result() { return memory_->result; }
  std::vector<Factor>& factors() { return factors_; }

 private:
  emulator::Launcher& launcher_;
  PlanTables tables_;
  Plan plan_;
  std::vector<ChunkStatistics> chunks_;
  std::vector<Statistics> tensors_;
  std::vector<std::uint64_t> summary_;
  std::vector<GroupSummary> groups_;
  std::vector<Factor> factors_;
};

// Every order in which threads may run.
inline constexpr emulator::Order kOrders[] = {
    emulator::Order::kAscending, emulator::Order::kDescending, emulator::Order::kShuffled};

// Fails the test for each violation found.
void expect_clean(emulator::Launcher& launcher);

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_TESTS_EMULATOR_STEP_DEVICE_H_
