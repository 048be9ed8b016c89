#include "client/guard/audit.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/numerics/statistics.h"

namespace gradwarden::guard {
namespace {

// What most ranks hold, the first of several that are equally many.
std::uint64_t common_digest(const Region& region, std::size_t index, const RegionBlocks& blocks) {
  std::uint64_t best = 0;
  std::size_t most = 0;
  for (const std::uint32_t candidate : region.ranks) {
    const std::uint64_t digest = blocks.of_rank(candidate)[index].digest;
    const auto holders = static_cast<std::size_t>(std::count_if(
        region.ranks.begin(), region.ranks.end(),
        [&](std::uint32_t rank) { return blocks.of_rank(rank)[index].digest == digest; }));
    if (holders <= most) continue;
    most = holders;
    best = digest;
    if (2 * most > region.ranks.size()) break;
  }
  return best;
}

bool all_equal(const Region& region, std::size_t index, const RegionBlocks& blocks) {
  const std::uint64_t first = blocks.of_rank(region.ranks[0])[index].digest;
  return std::all_of(region.ranks.begin(), region.ranks.end(), [&](std::uint32_t rank) {
    return blocks.of_rank(rank)[index].digest == first;
  });
}

// The spread of the norms, in parts of the largest.
double spread(const Region& region, std::size_t index, const RegionBlocks& blocks,
              double norm_type) {
  double least = INFINITY;
  double most = 0;
  bool all_infinite = true;  // powers that left float64 on every rank say nothing
  for (const std::uint32_t rank : region.ranks) {
    const double sum = blocks.of_rank(rank)[index].power_sum;
    const double norm = kernels::norm_of(sum, sum, norm_type);
    all_infinite = all_infinite && std::isinf(norm);
    least = std::min(least, norm);
    most = std::max(most, norm);
  }
  if (all_infinite) return 0;
  if (!std::isfinite(most)) return NAN;
  return most > 0 ? (most - least) / most : 0;
}

ReplicaMismatch mismatch_of(const Region& region, std::size_t index, const RegionBlocks& blocks) {
  ReplicaMismatch mismatch;
  mismatch.tensor = region.tensor;
  mismatch.signal = region.list;
  mismatch.index = region.index;
  mismatch.count = region.count;
  mismatch.declared_identical = region.identical;
  const std::uint64_t common = common_digest(region, index, blocks);
  for (const std::uint32_t rank : region.ranks) {
    if (blocks.of_rank(rank)[index].digest == common) continue;
    if (mismatch.rank_count < ReplicaMismatch::kMaxRanks) {
      mismatch.ranks[mismatch.rank_count] = rank;
    }
    ++mismatch.rank_count;
  }
  return mismatch;
}

}  // namespace

void compare_regions(std::span<const Region> regions, const RegionBlocks& blocks, double norm_type,
                     double tolerance, std::vector<ReplicaMismatch>& out) {
  for (std::size_t i = 0; i < regions.size() && out.size() < kMaxMismatches; ++i) {
    const Region& region = regions[i];
    if (all_equal(region, i, blocks)) continue;
    const double difference = spread(region, i, blocks, norm_type);
    if (!region.identical && difference <= tolerance) continue;
    ReplicaMismatch mismatch = mismatch_of(region, i, blocks);
    mismatch.relative_difference = difference;
    out.push_back(mismatch);
  }
}

void Audit::plan(const std::vector<Region>& regions, const Reading& gradients,
                 const Reading* parameters, bool on) {
  sources_.clear();
  sums_.clear();
  if (!on) return;
  std::vector<kernels::DigestTensor> tensors;
  const auto add = [&](const Reading& reading) {
    for (std::size_t i = 0; i < reading.segments().size(); ++i) {
      const Segment& segment = reading.segments()[i];
      if (segment.region == kNoRegion) continue;
      sources_.push_back({segment.region, &reading, i});
      tensors.push_back({segment.data, segment.count, static_cast<kernels::DType>(segment.dtype),
                         segment.offset, segment.map ? &*segment.map : nullptr});
    }
  };
  add(gradients);
  if (parameters != nullptr) add(*parameters);
  kernel_.plan(tensors);
  digests_.assign(tensors.size(), 0);
  sums_.assign(regions.size(), {});
}

std::span<const RegionSums> Audit::take(double norm_type, bool readable) noexcept {
  for (std::size_t i = 0; readable && i < sources_.size(); ++i) {
    kernel_.move(i, sources_[i].reading->segments()[sources_[i].segment].data);
  }
  if (readable) kernel_.run(digests_);
  std::fill(sums_.begin(), sums_.end(), RegionSums{});
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const Source& source = sources_[i];
    const kernels::Statistics& s = source.reading->statistics()[source.segment];
    if (!readable) digests_[i] = std::bit_cast<std::uint64_t>(s.power_sum + s.max_abs);
    RegionSums& sums = sums_[source.region];
    sums.digest += digests_[i];
    sums.power_sum =
        std::isinf(norm_type) ? std::max(sums.power_sum, s.max_abs) : sums.power_sum + s.power_sum;
  }
  return sums_;
}

}  // namespace gradwarden::guard
