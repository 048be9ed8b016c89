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

}  // namespace gradwarden::guard
