// The statistics kernel on the emulated GPU against long double arithmetic.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/emulator/step_device.h"

namespace gradwarden::kernels::cuda {
namespace {

using emulator::Launcher;
using emulator::Order;
using reference::Buffer;
using reference::Content;
using reference::Format;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The largest relative error of a norm that these tests met, for the record of the test run.
double worst_error = 0;
class RecordWorst : public testing::Environment {
  void TearDown() override {
    std::printf("[ figure   ] largest relative error of a norm: %.3g\n", worst_error);
  }
};
const auto* const kRecord = testing::AddGlobalTestEnvironment(new RecordWorst);

Statistics run(Launcher& launcher, Buffer& buffer, double p, unsigned grid = 3) {
  const TestTensor tensor{&buffer};
  StepDevice device(launcher, {&tensor, 1});
  device.p = p;
  device.grid = grid;
  device.run_statistics();
  device.run_fold();
  expect_clean(launcher);
  return device.tensors()[0];
}

void expect_as_reference(const Statistics& s, const Buffer& buffer, double p) {
  const reference::Expected e = reference::expected_statistics(buffer, p);
  EXPECT_EQ(s.max_abs, e.max_abs);
  EXPECT_EQ(s.nan_count, e.nan_count);
  EXPECT_EQ(s.inf_count, e.inf_count);
  EXPECT_EQ(s.zero_count, e.zero_count);
  EXPECT_EQ(s.first_non_finite, e.first_non_finite);
  if (std::isinf(p)) return;
  // The contract holds while the powers fit float64, which those of fp64 subnormals do not.
  if (e.power_sum > 0 && e.power_sum < std::numeric_limits<double>::min()) {
    EXPECT_GE(s.power_sum, 0);
    return;
  }
  const long double exact = std::pow(e.power_sum, 1.0L / p);
  const long double error = std::fabs(norm_of(s.power_sum, s.max_abs, p) - exact);
  if (exact > 0) worst_error = std::max(worst_error, static_cast<double>(error / exact));
  EXPECT_LE(static_cast<double>(error), 1e-6 * static_cast<double>(exact));
}

bool same_bits(const Statistics& a, const Statistics& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

std::vector<std::size_t> sizes_of(const Format& format) {
  const std::size_t chunk = kChunkBytes / format.bytes;
  return {0, 1, 7, 255, 1031, chunk - 1, chunk, chunk + 1, 2 * chunk + 13};
}

TEST(StatisticsKernel, AgreesWithLongDoubleForEveryTypeSizeAndContent) {
  Launcher launcher(Order::kShuffled, reference::seed());
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    for (const std::size_t size : sizes_of(format)) {
      Buffer buffer(format, size);
      for (const Content content : reference::kFiniteContents) {
        // Large inputs of every content for the usual norm; the others in the next test.
        if (size > 40000 && content != Content::kWide) continue;
        SCOPED_TRACE(format.name + (" of " + std::to_string(size)) + name_of(content));
        reference::fill(buffer, content, random);
        expect_as_reference(run(launcher, buffer, 2), buffer, 2);
      }
    }
  }
}

TEST(StatisticsKernel, AgreesWithLongDoubleForEveryNormType) {
  Launcher launcher(Order::kDescending);
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    for (const Content content : reference::kFiniteContents) {
      Buffer buffer(format, 3001);
      reference::fill(buffer, content, random);
      for (const double p : {1.0, 3.0, 0.5, 2.5, 7.0, kInfinity}) {
        if (p == 7.0 && content != Content::kGradient && content != Content::kMostlyZero) continue;
        SCOPED_TRACE(format.name + (" p " + std::to_string(p)) + name_of(content));
        expect_as_reference(run(launcher, buffer, p), buffer, p);
      }
    }
  }
}

TEST(StatisticsKernel, CountsAndLocatesWhatIsNotFinite) {
  Launcher launcher;
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    for (const Content content : {Content::kBroken, Content::kAllBroken}) {
      Buffer buffer(format, kChunkBytes / format.bytes + 777);
      reference::fill(buffer, content, random);
      for (const double p : {2.0, 3.0, kInfinity}) {
        SCOPED_TRACE(format.name + name_of(content));
        expect_as_reference(run(launcher, buffer, p), buffer, p);
      }
    }
  }
}

TEST(StatisticsKernel, FindsASingleNanAtTheVeryEndOfASecondChunk) {
  Launcher launcher;
  for (const Format& format : reference::kFormats) {
    const std::size_t last = 2 * kChunkBytes / format.bytes - 1;
    Buffer buffer(format, last + 1);
    buffer.set_bits(last, reference::infinity_bits(format) + 1);
    expect_as_reference(run(launcher, buffer, 2), buffer, 2);
  }
}

// Extremes of float32 side by side: what is tiny counts until it is below 1e-6 of the whole.
TEST(StatisticsKernel, KeepsItsAccuracyWithOneHugeElementAmongManyTiny) {
  Launcher launcher;
  const Format& format = reference::kFormats[1];
  for (const double huge : {3.4028234663852886e38, 1e3, 1.0, 1e-30}) {
    for (const double ratio : {1e-2, 1e-4, 1e-8, 1e-30}) {
      for (const double p : {1.0, 2.0, 3.0}) {
        Buffer buffer(format, 20000);
        for (std::size_t i = 0; i < 20000; ++i) {
          buffer.set_bits(i, reference::encode(format, huge * ratio));
        }
        buffer.set_bits(12345, reference::encode(format, -huge));
        SCOPED_TRACE(std::to_string(huge) + " " + std::to_string(ratio));
        expect_as_reference(run(launcher, buffer, p), buffer, p);
      }
    }
  }
}

// The worst case of rounding: every addition of the tree rounds the same way.
TEST(StatisticsKernel, KeepsItsAccuracyWhenAllRoundingsPointOneWay) {
  Launcher launcher;
  const Format& format = reference::kFormats[1];
  for (const std::uint32_t mantissa : {0x1U, 0x7fffffU, 0x3504f4U, 0x555555U, 0x400001U}) {
    Buffer buffer(format, 30000);
    for (std::size_t i = 0; i < 30000; ++i) buffer.set_bits(i, 0x3f800000U | mantissa);
    expect_as_reference(run(launcher, buffer, 2), buffer, 2);
    expect_as_reference(run(launcher, buffer, 1), buffer, 1);
  }
}

TEST(StatisticsKernel, SaturatesAndNeverTurnsToNanWherePowersLeaveFloat64) {
  Launcher launcher;
  Buffer buffer(reference::kFormats[0], 1000);
  for (std::size_t i = 0; i < 1000; ++i) {
    buffer.set_bits(i, reference::encode(reference::kFormats[0], 1e200));
  }
  for (const double p : {2.0, 3.0}) EXPECT_EQ(run(launcher, buffer, p).power_sum, kInfinity);
  Buffer floats(reference::kFormats[1], 1000);
  for (std::size_t i = 0; i < 1000; ++i) floats.set_bits(i, 0x7f7fffff);
  EXPECT_EQ(run(launcher, floats, 60).power_sum, kInfinity);
}

TEST(StatisticsKernel, GivesTheSameBitsForEveryGridOrderAndAlignment) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : reference::kFormats) {
    Buffer buffer(format, 3 * kChunkBytes / format.bytes / 2 + 5);
    reference::fill(buffer, Content::kWide, random);
    Launcher first;
    const Statistics expected = run(first, buffer, 2, 1);
    for (const Order order : kOrders) {
      Launcher launcher(order, reference::seed());
      for (const unsigned grid : {1U, 2U, 7U, 64U}) {
        EXPECT_TRUE(same_bits(run(launcher, buffer, 2, grid), expected)) << format.name;
      }
    }
    for (const std::size_t offset : {1U, 2U, 4U, 8U, 12U, 16U}) {
      Buffer moved = buffer.moved(offset);
      EXPECT_TRUE(same_bits(run(first, moved, 2), expected)) << format.name << " at " << offset;
    }
  }
}

TEST(StatisticsKernel, ReadsEachByteOfGradientsOnceAndWritesNone) {
  if (!Launcher::counts()) GTEST_SKIP() << "hardware counts no bytes";
  Launcher launcher;
  std::mt19937_64 random(reference::seed());
  std::uint64_t bytes = 0;
  for (const Format& format : reference::kFormats) {
    Buffer buffer(format, 50001, 16);
    reference::fill(buffer, Content::kBroken, random);
    run(launcher, buffer, 2);
    bytes += buffer.count() * format.bytes;
  }
  EXPECT_EQ(launcher.counters().bytes_read, bytes);
  EXPECT_EQ(launcher.counters().bytes_written, 0U);
}

}  // namespace
}  // namespace gradwarden::kernels::cuda
