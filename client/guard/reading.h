// One list of tensors in host memory that is read in one pass.
#ifndef GRADWARDEN_CLIENT_GUARD_READING_H_
#define GRADWARDEN_CLIENT_GUARD_READING_H_

#include <span>
#include <vector>

#include "client/guard/binding.h"
#include "gradwarden/guard.h"
#include "kernels/cpu/statistics.h"

namespace gradwarden::guard {

class Reading {
 public:
  explicit Reading(kernels::ParallelFor& threads) : kernel_(threads) {}

  // At bind: allocates.
  void plan(std::vector<Segment> segments);

  // The tensors moved: the new address of each shard, by its position in the list given to bind.
  void move(std::span<void* const> data) noexcept;

  // Takes the statistics of all segments.
  void run(double norm_type) noexcept { kernel_.run(tensors_, norm_type, statistics_); }

  // In place of a run: what the caller found, by segment.
  void take(std::span<const StretchStatistics> found) noexcept;

  bool empty() const noexcept { return segments_.empty(); }
  const std::vector<Segment>& segments() const noexcept { return segments_; }
  // By segment, of the last run.
  const std::vector<kernels::Statistics>& statistics() const noexcept { return statistics_; }

 private:
  kernels::StatisticsKernel kernel_;
  std::vector<Segment> segments_;
  std::vector<kernels::ConstTensor> tensors_;
  std::vector<kernels::Statistics> statistics_;
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_READING_H_
