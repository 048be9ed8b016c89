// A tensor of more than 2^31 elements: its chunks are read, counted and located by 64-bit
// arithmetic. Its memory would not fit the test, so single chunks of it are laid over a small
// buffer.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/cuda/kernels.h"
#include "tests/emulator/emulate.h"
#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::emulate;
using emulator::Launcher;
using reference::Buffer;
using reference::Content;

constexpr std::uint64_t kCount = 3 * (std::uint64_t{1} << 30) + 5;  // bf16: 6 GiB
constexpr std::uint64_t kChunkElements = kChunkBytes / 2;
constexpr std::uint64_t kChunks = kCount / kChunkElements + 1;

TensorEntry large_tensor() {
  TensorEntry entry;
  entry.count = kCount;
  entry.dtype = DType::kBFloat16;
  return entry;
}

TEST(LargeTensor, HasAChunkForEachOfItsElements) {
  const TensorEntry entry = large_tensor();
  const PlanTables tables = build_plan({&entry, 1}, 1);
  ASSERT_EQ(tables.chunks.size(), kChunks);
  EXPECT_EQ(tables.tensors[0].chunk_count, kChunks);
  EXPECT_EQ(tables.chunks.back().index, kChunks - 1);
}

TEST(LargeTensor, IsReadAtTheRightPlaceOnBothSidesOfTwoToThe31) {
  const TensorEntry entry = large_tensor();
  PlanTables tables = build_plan({&entry, 1}, 1);
  std::mt19937_64 random(reference::seed());
  for (const std::uint64_t chunk : {std::uint64_t{0}, (std::uint64_t{1} << 31) / kChunkElements - 1,
                                    (std::uint64_t{1} << 31) / kChunkElements, kChunks - 1}) {
    const std::uint64_t elements = std::min(kChunkElements, kCount - chunk * kChunkElements);
    Buffer buffer(reference::kFormats[2], elements);
    reference::fill(buffer, Content::kGradient, random);
    buffer.set_bits(elements - 1, 0x7fc0);  // the last one is NaN
    // Where the tensor would begin if this chunk lay in the buffer; never followed to there.
    const auto begin = reinterpret_cast<std::uintptr_t>(buffer.data()) - chunk * kChunkBytes;
    const auto moved = std::make_unique<TensorEntry>(tables.tensors[0]);
    moved->data = reinterpret_cast<void*>(begin);
    Launcher launcher;
    launcher.register_buffer(buffer.data(), elements * 2);
    const auto out = std::make_unique<ChunkStatistics>();
    emulate(find_statistics_kernel(NormType::kTwo), 1, kBlockThreads, launcher, moved.get(),
            &tables.chunks[chunk], 1, 2.0, out.get());
    expect_clean(launcher);
    const reference::Expected expected = reference::expected_statistics(buffer, 2);
    const auto exact = static_cast<double>(expected.power_sum);
    EXPECT_NEAR(out->power_sum, exact, 2e-6 * exact) << "chunk " << chunk;
    EXPECT_EQ(out->nan_count, 1U);
    EXPECT_EQ(out->first_non_finite, elements - 1);
  }
}

TEST(LargeTensor, IsFoldedWithCountsAndIndicesBeyond32Bits) {
  const TensorEntry entry = large_tensor();
  const PlanTables tables = build_plan({&entry, 1}, 1);
  std::vector<ChunkStatistics> chunks(kChunks);
  for (ChunkStatistics& chunk : chunks) {
    chunk.power_sum = 1;
    chunk.zero_count = kChunkElements - 1;
  }
  chunks.back().nan_count = 1;
  chunks.back().first_non_finite = 3;
  std::vector<Statistics> tensors(1);
  std::vector<std::uint64_t> summary(summary_bytes(1) / 8);
  const auto blocks_done = std::make_unique<std::uint32_t>(0);
  const auto counters = std::make_unique<StepCounters>();
  FoldArguments a;
  a.plan = plan_over(tables, tables.tensors.data(), tables.chunks.data(),
                     tables.group_tensors.data(), tables.group_first.data());
  a.chunks = chunks.data();
  a.tensors = tensors.data();
  a.summary = reinterpret_cast<RankHeader*>(summary.data());
  a.groups = groups_of(a.summary);
  a.counters = counters.get();
  a.blocks_done = blocks_done.get();
  Launcher launcher;
  emulate(find_fold_kernel(), 2, kBlockThreads, launcher, a);
  expect_clean(launcher);
  EXPECT_EQ(tensors[0].power_sum, static_cast<double>(kChunks));
  EXPECT_EQ(tensors[0].zero_count, kChunks * (kChunkElements - 1));
  EXPECT_GT(tensors[0].zero_count, std::uint64_t{1} << 31);
  EXPECT_EQ(tensors[0].first_non_finite, (kChunks - 1) * kChunkElements + 3);
  EXPECT_EQ(a.summary->shard_first.index, (kChunks - 1) * kChunkElements + 3);
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
