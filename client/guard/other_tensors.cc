#include "client/guard/other_tensors.h"

#include <algorithm>

#include "client/guard/summary.h"

namespace gradwarden::guard {
namespace {

using kernels::GroupSummary;

const GroupSummary* block_of(const void* blocks, std::size_t stride, std::size_t rank) {
  return reinterpret_cast<const GroupSummary*>(static_cast<const unsigned char*>(blocks) +
                                               rank * stride);
}

GroupSummary fold_one(const void* blocks, std::size_t stride, std::size_t world_size,
                      std::size_t position) {
  GroupSummary whole;
  for (std::size_t rank = 0; rank < world_size; ++rank) {
    kernels::add_part(block_of(blocks, stride, rank)[position], whole);
  }
  return whole;
}

}  // namespace

void SignalTable::resize(const std::vector<BoundList>& lists, std::size_t groups) {
  group_count = groups;
  signals.assign(lists.size(), {});
  group_norms.assign(lists.size() * groups, 0);
  for (std::uint32_t i = 0; i < lists.size(); ++i) {
    signals[i].signal = i;
    signals[i].element_count = lists[i].element_count;
  }
}

void SignalTable::fold(const void* blocks, std::size_t stride, std::size_t world_size,
                       double norm_type) {
  for (std::size_t list = 0; list < signals.size(); ++list) {
    kernels::GlobalSums all;
    for (std::size_t group = 0; group < group_count; ++group) {
      const std::size_t position = list * group_count + group;
      const GroupSummary sum = fold_one(blocks, stride, world_size, position);
      kernels::add_group(sum, all);
      group_norms[position] = kernels::norm_of(sum.power_sum, sum.max_abs, norm_type);
    }
    SignalStatistics& signal = signals[list];
    signal.norm = kernels::norm_of(all.power_sum, all.max_abs, norm_type);
    signal.max_abs = all.max_abs;
    signal.nan_count = all.nan_count;
    signal.inf_count = all.inf_count;
    signal.zero_count = all.zero_count;
  }
}

std::size_t signal_block_bytes(std::size_t lists, std::size_t group_count) {
  return lists * group_count * sizeof(GroupSummary);
}

void OtherTensors::plan(const std::vector<BoundList>& lists, std::size_t group_count) {
  group_count_ = group_count;
  readings_.clear();
  for (const BoundList& list : lists) {
    readings_.push_back(std::make_unique<Reading>(threads_));
    readings_.back()->plan(list.segments);
  }
  summaries_.assign(lists.size() * group_count, {});
}

std::span<const GroupSummary> OtherTensors::summarize() noexcept {
  std::fill(summaries_.begin(), summaries_.end(), GroupSummary{});
  for (std::size_t list = 0; list < readings_.size(); ++list) {
    const Reading& reading = *readings_[list];
    add_to_groups(reading.segments(), reading.statistics(),
                  std::span(summaries_).subspan(list * group_count_, group_count_));
  }
  return summaries_;
}

}  // namespace gradwarden::guard
