#include "client/guard/cuda/device_plan.h"

#include <algorithm>
#include <cstring>

namespace gradwarden::guard {
namespace {

using kernels::cuda::TensorEntry;

// Segments that are boxes of their tensors get a place in `maps`.
std::vector<TensorEntry> entries_of(std::span<const Segment> segments,
                                    std::vector<kernels::IndexMap>& maps) {
  std::vector<TensorEntry> entries;
  entries.reserve(segments.size());
  for (const Segment& segment : segments) {
    TensorEntry entry;
    entry.data = segment.data;
    entry.count = segment.count;
    entry.offset = segment.offset;
    entry.weight = 1.0 / segment.replicas;
    entry.id = segment.tensor;
    entry.group = segment.group;
    entry.dtype = static_cast<kernels::DType>(segment.dtype);
    if (segment.map) {
      entry.map = static_cast<std::uint32_t>(maps.size());
      maps.push_back(*segment.map);
    }
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace

DevicePlan::~DevicePlan() {
  for (const Copy& copy : copies_) {
    if (copy.read != nullptr) cudaEventDestroy(copy.read);
  }
}

void DevicePlan::build(std::span<const Segment> segments, const Sizes& sizes, cudaStream_t stream) {
  std::vector<kernels::IndexMap> maps;
  tables_ = kernels::cuda::build_plan(entries_of(segments, maps),
                                      static_cast<std::uint32_t>(sizes.groups),
                                      static_cast<std::uint32_t>(sizes.whole_tensors));
  origins_.clear();
  first_stale_ = SIZE_MAX;
  last_stale_ = 0;
  for (const Segment& segment : segments) {
    origins_.push_back({segment.shard, segment.byte_offset});
  }
  upload(stream);
  maps_ = upload_table(maps, stream);
  plan_.maps = maps_.as<const kernels::IndexMap>();
  grids_ = grids_for(plan_);
  if (sizes.moves) make_copies();
  require(cudaStreamSynchronize(stream), "copying the guard's tables to the device");
}

void DevicePlan::upload(cudaStream_t stream) {
  entries_ = upload_table(tables_.tensors, stream);
  chunk_entries_ = upload_table(tables_.chunks, stream);
  group_tensors_ = upload_table(tables_.group_tensors, stream);
  group_first_ = upload_table(tables_.group_first, stream);
  whole_parts_ = upload_table(tables_.whole_parts, stream);
  whole_first_ = upload_table(tables_.whole_first, stream);
  chunks_ = DeviceMemory(tables_.chunks.size() * sizeof(kernels::cuda::ChunkStatistics));
  tensors_ = DeviceMemory(tables_.tensors.size() * sizeof(kernels::Statistics));
  plan_ = kernels::cuda::plan_over(tables_, entries_.as<const TensorEntry>(),
                                   chunk_entries_.as<const kernels::cuda::ChunkEntry>(),
                                   group_tensors_.as<const std::uint32_t>(),
                                   group_first_.as<const std::uint32_t>());
  plan_.whole_parts = whole_parts_.as<const std::uint32_t>();
  plan_.whole_first = whole_first_.as<const std::uint32_t>();
}

void DevicePlan::make_copies() {
  for (Copy& copy : copies_) {
    copy.entries = PinnedMemory(tables_.tensors.size() * sizeof(TensorEntry));
    if (copy.read == nullptr) {
      require(cudaEventCreateWithFlags(&copy.read, cudaEventDisableTiming), "making an event");
    }
  }
}

cudaError_t DevicePlan::update(std::span<void* const> data, cudaStream_t stream) noexcept {
  std::vector<TensorEntry>& entries = tables_.tensors;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    void* now = static_cast<char*>(data[origins_[i].shard]) + origins_[i].byte_offset;
    if (entries[i].data == now) continue;
    entries[i].data = now;
    first_stale_ = std::min(first_stale_, i);
    last_stale_ = std::max(last_stale_, i);
  }
  if (first_stale_ > last_stale_) return cudaSuccess;
  Copy& copy = copies_[next_copy_ % kCopies];
  if (const cudaError_t error = cudaEventQuery(copy.read)) return error;
  const std::size_t bytes = (last_stale_ - first_stale_ + 1) * sizeof(TensorEntry);
  std::memcpy(copy.entries.host<TensorEntry>(), &entries[first_stale_], bytes);
  cudaError_t error =
      cudaMemcpyAsync(entries_.as<TensorEntry>() + first_stale_, copy.entries.host<TensorEntry>(),
                      bytes, cudaMemcpyHostToDevice, stream);
  if (error == cudaSuccess) error = cudaEventRecord(copy.read, stream);
  if (error != cudaSuccess) return error;
  ++next_copy_;
  first_stale_ = SIZE_MAX;
  last_stale_ = 0;
  return cudaSuccess;
}

}  // namespace gradwarden::guard
