// Statistics of lists of tensors beside the gradients: parameters, updates, moments. In the steps
// that observe them, each rank's summary carries one GroupSummary per list and group.
#ifndef GRADWARDEN_CLIENT_GUARD_OTHER_TENSORS_H_
#define GRADWARDEN_CLIENT_GUARD_OTHER_TENSORS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "client/guard/reading.h"
#include "gradwarden/step_record.h"
#include "kernels/numerics/summary.h"

namespace gradwarden::guard {

// Every other list over all ranks. Sized at bind and reused.
struct SignalTable {
  void resize(const std::vector<BoundList>& lists, std::size_t group_count);
  // From the blocks of all ranks, `stride` bytes apart.
  void fold(const void* blocks, std::size_t stride, std::size_t world_size, double norm_type);

  std::size_t group_count = 0;
  std::vector<SignalStatistics> signals;
  std::vector<double> group_norms;  // signals x groups
};

// Bytes of a rank's block.
std::size_t signal_block_bytes(std::size_t lists, std::size_t group_count);

class OtherTensors {
 public:
  explicit OtherTensors(kernels::ParallelFor& threads) : threads_(threads) {}

  // At bind: allocates.
  void plan(const std::vector<BoundList>& lists, std::size_t group_count);

  // Takes the statistics of one list.
  void read(std::size_t list, double norm_type) noexcept { readings_[list]->run(norm_type); }
  const Reading& reading(std::size_t list) const noexcept { return *readings_[list]; }
  Reading& reading(std::size_t list) noexcept { return *readings_[list]; }

  // This rank's block, from the last statistics of each list.
  std::span<const kernels::GroupSummary> summarize() noexcept;

 private:
  kernels::ParallelFor& threads_;
  std::size_t group_count_ = 0;
  std::vector<std::unique_ptr<Reading>> readings_;
  std::vector<kernels::GroupSummary> summaries_;  // lists x groups
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_OTHER_TENSORS_H_
