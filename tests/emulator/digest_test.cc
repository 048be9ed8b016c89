// The digest kernel against the host's digests: the same words for every type of element, cut,
// alignment and grid.
#include "kernels/cpu/digest.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/plan_tables.h"
#include "tests/emulator/emulate.h"
#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::emulate;
using emulator::Launcher;
using reference::Buffer;

// Columns [5, 5 + width) of rows of 40 elements.
IndexMap columns(std::uint64_t width, std::uint64_t count) {
  IndexMap map;
  map.first = 3;
  map.corner = 5;
  map.dimensions = 2;
  map.extent[0] = count / width + 2;
  map.extent[1] = width;
  map.stride[0] = 40;
  map.stride[1] = 1;
  return map;
}

// Buffers of all types, large and small; every third is a box, every fourth of no region.
struct Shards {
  explicit Shards(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    constexpr std::size_t kCounts[] = {1, 70000, 4099, 0, 33, 8192};
    buffers.reserve(24);
    for (std::size_t i = 0; i < 24; ++i) {
      buffers.emplace_back(reference::kFormats[i % 4], kCounts[i / 4], i % 5 == 2 ? i : 0);
      reference::fill(buffers.back(), reference::Content::kWide, random);
      TensorEntry entry;
      entry.data = buffers.back().data();
      entry.count = buffers.back().count();
      entry.offset = (std::uint64_t{1} << 33) + 1000 * i;
      entry.dtype = buffers.back().format().dtype;
      if (i % 3 == 1) {
        entry.map = static_cast<std::uint32_t>(maps.size());
        maps.push_back(columns(7, entry.count));
      }
      entries.push_back(entry);
      regions.push_back(i % 4 == 3 && i != 7 ? DigestArguments::kNoRegion
                                             : static_cast<std::uint32_t>(i % 5));
    }
  }

  std::vector<std::uint64_t> on_host() const {
    std::vector<DigestTensor> tensors;
    for (const TensorEntry& entry : entries) {
      tensors.push_back({entry.data, entry.count, entry.dtype, entry.offset,
                         entry.map != TensorEntry::kNoMap ? &maps[entry.map] : nullptr});
    }
    ParallelFor threads(1);
    kernels::DigestKernel kernel(threads);
    kernel.plan(tensors);
    std::vector<std::uint64_t> each(tensors.size());
    kernel.run(each);
    std::vector<std::uint64_t> sums(5, 0);
    for (std::size_t i = 0; i < each.size(); ++i) {
      if (regions[i] != DigestArguments::kNoRegion) sums[regions[i]] += each[i];
    }
    return sums;
  }

  std::vector<Buffer> buffers;
  std::vector<IndexMap> maps;
  std::vector<TensorEntry> entries;
  std::vector<std::uint32_t> regions;
};

TEST(Digest, OnTheDeviceIsTheHostsForEveryTypeCutAndGrid) {
  const Shards shards(reference::seed());
  const std::vector<std::uint64_t> expected = shards.on_host();
  const PlanTables tables = build_plan(shards.entries, 1);
  DigestArguments a;
  a.plan = plan_over(tables, tables.tensors.data(), tables.chunks.data(),
                     tables.group_tensors.data(), tables.group_first.data());
  a.plan.maps = shards.maps.data();
  a.regions = shards.regions.data();
  for (const emulator::Order order : kOrders) {
    for (const unsigned grid : {1U, 3U, 64U}) {
      std::vector<std::uint64_t> digests(5, 0);
      a.digests = digests.data();
      Launcher launcher(order, reference::seed());
      for (const TensorEntry& entry : shards.entries) {
        if (entry.count != 0) {
          launcher.register_buffer(entry.data, entry.count * dtype_bytes(entry.dtype));
        }
      }
      emulate(find_digest_kernel(), grid, kBlockThreads, launcher, a);
      expect_clean(launcher);
      EXPECT_EQ(digests, expected) << "grid " << grid;
    }
  }
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
