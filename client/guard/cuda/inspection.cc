#include "client/guard/cuda/inspection.h"

#include <algorithm>

#include "client/guard/adaptive_clip.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/launch.h"

namespace gradwarden::guard {
namespace {

namespace device = kernels::cuda;

static_assert(device::DigestArguments::kNoRegion == kNoRegion);

DeviceMemory zeroed(std::size_t bytes, cudaStream_t stream) {
  DeviceMemory memory(bytes);
  if (bytes != 0) {
    require(cudaMemsetAsync(memory.as<void>(), 0, bytes, stream), "clearing the inspection");
  }
  return memory;
}

bool any_shared(std::span<const Segment> segments) {
  return std::any_of(segments.begin(), segments.end(),
                     [](const Segment& segment) { return segment.region != kNoRegion; });
}

// Which statistics make up each region, in the order of the segments.
struct Sources {
  std::vector<std::vector<const kernels::Statistics*>> of_region;

  void add(std::span<const Segment> segments, const DevicePlan& plan) {
    for (std::size_t i = 0; i < segments.size(); ++i) {
      const std::uint32_t region = segments[i].region;
      if (region != kNoRegion) of_region[region].push_back(plan.tensors() + i);
    }
  }
};

}  // namespace

device::InspectionSizes inspection_sizes(const Binding& binding, const GuardOptions& options) {
  return {options.audit_every != 0 ? binding.regions.size() : 0,
          options.observe_others_every != 0 ? binding.others.size() : 0, binding.groups.size()};
}

void Inspection::choose(const Binding& binding, const GuardOptions& options) {
  audit_every_ = options.audit_every;
  observe_every_ = options.observe_others_every;
  sizes_ = inspection_sizes(binding, options);
}

void Inspection::build(const Binding& binding, std::size_t world_size, const Plans& plans,
                       cudaStream_t stream) {
  world_size_ = world_size;
  lists_.clear();
  const std::size_t first = parameters_of(binding) != nullptr ? 1 : 0;
  for (std::size_t i = first; i < sizes_.lists; ++i) {
    List& list = lists_.emplace_back();
    list.index = i;
    list.plan.build(binding.others[i].segments, {binding.groups.size(), 0, false}, stream);
  }
  const Parts all = all_parts();
  const std::size_t size = all.any() ? bytes(all) : 0;
  block_ = zeroed(size, stream);
  gathered_ = zeroed(world_size > 1 ? size * world_size : 0, stream);
  build_audit(binding, plans, stream);
  require(cudaStreamSynchronize(stream), "preparing the inspection");
}

void Inspection::build_audit(const Binding& binding, const Plans& plans, cudaStream_t stream) {
  digests_ = DeviceMemory(sizes_.regions * sizeof(std::uint64_t));
  sources_ = DeviceMemory();
  source_first_ = DeviceMemory();
  for (Digested& digested : digested_) digested = {};
  if (sizes_.regions == 0) return;
  Sources sources;
  sources.of_region.resize(sizes_.regions);
  const auto add = [&](std::span<const Segment> segments, const DevicePlan& plan, Digested& to) {
    if (!any_shared(segments)) return;
    std::vector<std::uint32_t> regions;
    for (const Segment& segment : segments) regions.push_back(segment.region);
    to.plan = &plan;
    to.regions = upload_table(regions, stream);
    require(cudaStreamSynchronize(stream), "preparing the audit");
    sources.add(segments, plan);
  };
  add(binding.shards, plans.shards, digested_[0]);
  if (const BoundList* parameters = parameters_of(binding)) {
    add(parameters->segments, plans.parameters, digested_[1]);
  }
  std::vector<const kernels::Statistics*> all;
  std::vector<std::uint32_t> first = {0};
  for (const auto& of_one : sources.of_region) {
    all.insert(all.end(), of_one.begin(), of_one.end());
    first.push_back(static_cast<std::uint32_t>(all.size()));
  }
  sources_ = upload_table(all, stream);
  source_first_ = upload_table(first, stream);
  require(cudaStreamSynchronize(stream), "preparing the audit");
}

Inspection::Parts Inspection::due(std::uint64_t n) const noexcept {
  Parts parts = all_parts();
  parts.audit = parts.audit && n % audit_every_ == 0;
  parts.signals = parts.signals && n % observe_every_ == 0;
  return parts;
}

kernels::GroupSummary* Inspection::sums_of_list(const Parts& parts,
                                                std::size_t index) const noexcept {
  auto* sums = reinterpret_cast<kernels::GroupSummary*>(block_.as<unsigned char>() +
                                                        device::signals_at(sizes_, parts));
  return sums + index * sizes_.groups;
}

// Integer sums by atomics, onto zeros.
cudaError_t Inspection::digest(cudaStream_t stream) noexcept {
  cudaError_t error =
      cudaMemsetAsync(digests_.as<void>(), 0, sizes_.regions * sizeof(std::uint64_t), stream);
  for (const Digested& digested : digested_) {
    if (error != cudaSuccess || digested.plan == nullptr) continue;
    device::DigestArguments a;
    a.plan = digested.plan->plan();
    a.regions = digested.regions.as<const std::uint32_t>();
    a.digests = digests_.as<std::uint64_t>();
    error = device::launch(device::find_digest_kernel(), digested.plan->grids().digest,
                           device::kBlockThreads, stream, a);
  }
  return error;
}

cudaError_t Inspection::seal(const Step& step, cudaStream_t stream) noexcept {
  if (step.parts.audit) {
    if (const cudaError_t error = digest(stream)) return error;
  }
  device::SealArguments a;
  a.block = block_.as<unsigned char>();
  a.region_count = step.parts.audit ? sizes_.regions : 0;
  a.digests = digests_.as<const std::uint64_t>();
  a.sources = sources_.as<const kernels::Statistics* const>();
  a.source_first = source_first_.as<const std::uint32_t>();
  a.p = step.norm_type;
  a.counters = step.counters;
  a.count = step.count;
  a.progress = step.progress;
  const std::uint64_t blocks = (a.region_count + device::kBlockThreads - 1) / device::kBlockThreads;
  return device::launch(device::find_seal_kernel(),
                        static_cast<unsigned>(std::clamp<std::uint64_t>(blocks, 1, 256)),
                        device::kBlockThreads, stream, a);
}

cudaError_t Inspection::deliver(const Step& step, const device::InspectionRing& ring,
                                cudaStream_t stream) noexcept {
  device::DeliverArguments a;
  a.gathered = world_size_ > 1 ? gathered() : block();
  a.bytes = bytes(step.parts) * world_size_;
  a.parts = step.parts;
  a.ring = ring;
  a.counters = step.counters;
  a.count = step.count;
  a.progress = step.progress;
  return device::launch(device::find_deliver_kernel(), 1, device::kBlockThreads, stream, a);
}

}  // namespace gradwarden::guard
