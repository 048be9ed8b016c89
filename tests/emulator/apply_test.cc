// The apply kernel on the emulated GPU against one element at a time, and what it leaves alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cpu/scale.h"
#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::Launcher;
using emulator::Order;
using reference::Buffer;
using reference::Content;
using reference::Format;

std::uint64_t expected_bits(const Format& format, std::uint64_t bits, double factor, double limit) {
  const double value = reference::decode(format, bits);
  double scaled = value * factor;
  if (format.dtype != DType::kFloat64) {
    const Float32Factor parts = split_factor(factor);
    scaled = static_cast<float>(value) * parts.first * parts.second;
  }
  if (limit > 0 && !std::isnan(scaled)) {
    const double bound = format.dtype == DType::kFloat64 ? limit : static_cast<float>(limit);
    scaled = std::max(-bound, std::min(bound, scaled));
  }
  return reference::encode(format, scaled);
}

bool is_nan(const Format& format, std::uint64_t bits) {
  return std::isnan(reference::decode(format, bits));
}

Factor factor_of(double factor, double limit = 0) { return {factor, split_factor(factor), limit}; }

void check_apply(Launcher& launcher, const Buffer& before, double factor, double limit) {
  Buffer after = before;
  const TestTensor tensor{&after};
  StepDevice device(launcher, {&tensor, 1});
  device.factors()[0] = factor_of(factor, limit);
  device.run_apply();
  expect_clean(launcher);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < before.count(); ++i) {
    const std::uint64_t bits = expected_bits(before.format(), before.bits(i), factor, limit);
    const bool nan = is_nan(before.format(), bits) && is_nan(before.format(), after.bits(i));
    wrong += !nan && bits != after.bits(i);
  }
  EXPECT_EQ(wrong, 0U) << before.format().name << " factor " << factor << " limit " << limit;
}

TEST(ApplyKernel, ScalesEveryTypeToTheBitsOfOneElementAtATime) {
  Launcher launcher(Order::kShuffled, reference::seed());
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    for (const Content content : {Content::kWide, Content::kSubnormal, Content::kNearMax,
                                  Content::kBroken, Content::kAllBroken, Content::kMostlyZero}) {
      for (const std::size_t size : {1U, 1033U, 5000U}) {
        for (const std::size_t offset : {0U, 1U, 8U}) {
          Buffer buffer(format, size, offset);
          reference::fill(buffer, content, random);
          for (const double factor : {0.3, 1.0 / 65536, 1e-43, 3e30}) {
            check_apply(launcher, buffer, factor, 0);
          }
        }
      }
    }
  }
}

TEST(ApplyKernel, ScalesEveryPatternOf16Bits) {
  Launcher launcher;
  for (const Format& format : {reference::kFormats[2], reference::kFormats[3]}) {
    Buffer buffer(format, 65536);
    for (std::size_t i = 0; i < 65536; ++i) buffer.set_bits(i, i);
    for (const double factor : {0.7, 1.3, 1.0 / 1024}) check_apply(launcher, buffer, factor, 0);
  }
}

TEST(ApplyKernel, GivesTheBitsOfTheCpuKernelAcrossChunks) {
  Launcher launcher;
  std::mt19937_64 random(reference::seed());
  ParallelFor threads(1);
  for (const Format& format : reference::kFormats) {
    Buffer gpu(format, 2 * kChunkBytes / format.bytes + 77);
    reference::fill(gpu, Content::kWide, random);
    Buffer cpu = gpu;
    const Tensor host{cpu.data(), cpu.count(), format.dtype};
    scale({&host, 1}, 0.123, threads);
    const TestTensor tensor{&gpu};
    StepDevice device(launcher, {&tensor, 1});
    device.factors()[0] = factor_of(0.123);
    device.run_apply();
    EXPECT_EQ(std::memcmp(gpu.data(), cpu.data(), gpu.count() * format.bytes), 0) << format.name;
  }
  expect_clean(launcher);
}

TEST(ApplyKernel, ClampsByValueAndKeepsNan) {
  Launcher launcher;
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    Buffer buffer(format, 3000);
    reference::fill(buffer, Content::kBroken, random);
    for (const double factor : {1.0, 0.5}) check_apply(launcher, buffer, factor, 1e-3);
  }
}

TEST(ApplyKernel, ScalesEachGroupByItsOwnFactor) {
  Launcher launcher;
  std::mt19937_64 random(reference::seed());
  std::vector<Buffer> buffers(3, Buffer(reference::kFormats[1], 2000));
  for (Buffer& buffer : buffers) reference::fill(buffer, Content::kGradient, random);
  const std::vector<Buffer> before = buffers;
  const std::vector<TestTensor> tensors = {{&buffers[0], 0}, {&buffers[1], 1}, {&buffers[2], 2}};
  StepDevice device(launcher, tensors, 3);
  const double factors[] = {0.5, 1, 0.1};
  for (int g = 0; g < 3; ++g) device.factors()[g] = factor_of(factors[g]);
  device.run_apply();
  expect_clean(launcher);
  for (int g = 0; g < 3; ++g) {
    for (std::size_t i = 0; i < 2000; ++i) {
      const std::uint64_t bits = before[g].bits(i);
      ASSERT_EQ(buffers[g].bits(i), expected_bits(before[g].format(), bits, factors[g], 0));
    }
  }
  // Group 1 is not even read.
  if (Launcher::counts()) {
    EXPECT_EQ(launcher.counters().bytes_read, 2U * 2000 * 4);
  }
}

// ---- whole steps -------------------------------------------------------------------------------

struct Traffic {
  std::uint64_t launches;
  std::uint64_t read;
  std::uint64_t written;
};

// One step over buffers of all types; counts what it did to gradient memory and whether it changed.
Traffic step(std::vector<Buffer>& buffers, const GuardPolicy& policy, const float* loss_scale,
             bool& changed) {
  Launcher launcher;
  std::vector<TestTensor> tensors;
  for (Buffer& buffer : buffers) tensors.push_back({&buffer});
  const std::vector<Buffer> before = buffers;
  // Copies of a vector of buffers do not share memory, so these are the bytes from before.
  StepDevice device(launcher, tensors);
  device.policy = policy;
  device.loss_scale = loss_scale;
  device.run_statistics();
  device.run_fold();
  device.run_decide();
  device.run_apply();
  expect_clean(launcher);
  changed = false;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const std::size_t bytes = buffers[i].count() * buffers[i].format().bytes;
    changed = changed || std::memcmp(buffers[i].data(), before[i].data(), bytes) != 0;
  }
  const emulator::Counters& c = launcher.counters();
  return {c.launches, c.bytes_read, c.bytes_written};
}

class WholeStep : public testing::Test {
 protected:
  void SetUp() override {
    if (!Launcher::counts()) GTEST_SKIP() << "hardware counts no bytes";
    std::mt19937_64 random(reference::seed());
    for (const Format& format : reference::kFormats) {
      buffers_.emplace_back(format, 9999);
      reference::fill(buffers_.back(), Content::kGradient, random);
      bytes_ += 9999 * static_cast<std::uint64_t>(format.bytes);
    }
  }
  std::vector<Buffer> buffers_;
  std::uint64_t bytes_ = 0;
  GuardPolicy policy_;
  bool changed_ = false;
};

TEST_F(WholeStep, ReadsGradientsOnceAndWritesNothingWhenHealthy) {
  policy_.max_norm = 1e6;
  const Traffic t = step(buffers_, policy_, nullptr, changed_);
  EXPECT_EQ(t.launches, 4U);
  EXPECT_EQ(t.read, bytes_);
  EXPECT_EQ(t.written, 0U);
  EXPECT_FALSE(changed_);
}

TEST_F(WholeStep, ReadsTwiceAndWritesOnceAtMostWhenClipping) {
  policy_.max_norm = 1e-3;
  const Traffic t = step(buffers_, policy_, nullptr, changed_);
  EXPECT_EQ(t.launches, 4U);
  EXPECT_EQ(t.read, 2 * bytes_);
  EXPECT_GT(t.written, bytes_ / 2);
  EXPECT_LE(t.written, bytes_);
  EXPECT_TRUE(changed_);
}

TEST_F(WholeStep, LeavesGradientsUntouchedWhenSkipping) {
  buffers_[2].set_bits(17, 0x7fc1);  // a NaN with a payload
  const float loss_scale = 65536;
  const Traffic t = step(buffers_, policy_, &loss_scale, changed_);
  EXPECT_EQ(t.read, bytes_);
  EXPECT_EQ(t.written, 0U);
  EXPECT_FALSE(changed_);
}

TEST_F(WholeStep, FoldsTheLossScaleIntoTheOneWrite) {
  const float loss_scale = 4;
  const Buffer before = buffers_[1];
  const Traffic t = step(buffers_, policy_, &loss_scale, changed_);
  EXPECT_EQ(t.read, 2 * bytes_);
  EXPECT_LE(t.written, bytes_);
  for (std::size_t i = 0; i < before.count(); ++i) {
    ASSERT_EQ(buffers_[1].bits(i), expected_bits(before.format(), before.bits(i), 0.25, 0));
  }
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
