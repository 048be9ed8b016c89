#include "client/guard/reading.h"

namespace gradwarden::guard {

void Reading::plan(std::vector<Segment> segments) {
  segments_ = std::move(segments);
  tensors_.clear();
  for (const Segment& segment : segments_) {
    tensors_.push_back({segment.data, segment.count, static_cast<kernels::DType>(segment.dtype)});
  }
  statistics_.assign(segments_.size(), {});
  kernel_.plan(tensors_);
}

void Reading::move(std::span<void* const> data) noexcept {
  for (std::size_t i = 0; i < segments_.size(); ++i) {
    Segment& segment = segments_[i];
    segment.data = static_cast<char*>(data[segment.shard]) + segment.byte_offset;
    tensors_[i].data = segment.data;
  }
}

void Reading::take(std::span<const StretchStatistics> found) noexcept {
  for (std::size_t i = 0; i < statistics_.size(); ++i) {
    const StretchStatistics& s = found[i];
    statistics_[i] = {s.power_sum, s.max_abs,    s.nan_count,
                      s.inf_count, s.zero_count, s.first_non_finite};
  }
}

}  // namespace gradwarden::guard
