#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/scale.h"
#include "kernels/numerics/clip.h"
#include "tests/property/kernel_reference.h"

namespace gradwarden::kernels {
namespace {

using reference::Buffer;
using reference::Content;
using reference::Format;
using reference::kFormats;

constexpr double kFactors[] = {0.5,        0.37,      1.0 / 3,    1e-3,         1e-30,
                               0x1.8p-130, 0x1p-149,  0x1.3p-200, 0.0,          3.0,
                               1e5,        0x1.8p130, -0.7,       1.0 - 0x1p-24};

void scale_buffer(Buffer& buffer, double factor, unsigned threads = 1) {
  ParallelFor pool(threads);
  const Tensor tensor{buffer.count() == 0 ? nullptr : buffer.data(), buffer.count(),
                      buffer.format().dtype};
  scale({&tensor, 1}, factor, pool);
}

// What scale() documents, one element at a time. Equal up to the payload of a NaN.
std::uint64_t expected(const Format& format, std::uint64_t bits, double factor) {
  const double value = reference::decode(format, bits);
  if (!std::isfinite(value)) return bits;
  if (format.dtype == DType::kFloat64) return reference::encode(format, value * factor);
  const Float32Factor split = split_factor(factor);
  const float once = static_cast<float>(value) * split.first;
  const float twice = once * split.second;
  return reference::encode(format, twice);
}

void expect_scaled(const Buffer& before, const Buffer& after, double factor) {
  const Format& format = before.format();
  int wrong = 0;
  for (std::size_t i = 0; i < before.count() && wrong < 5; ++i) {
    if (std::isnan(before.value(i))) {
      const std::uint64_t quiet = std::uint64_t{1} << (format.mantissa_bits - 1);
      if (std::isnan(after.value(i)) && (after.bits(i) & quiet) != 0) continue;
    } else if (after.bits(i) == expected(format, before.bits(i), factor)) {
      continue;
    }
    ++wrong;
    ADD_FAILURE() << format.name << " element " << i << ": " << before.value(i) << " (bits "
                  << std::hex << before.bits(i) << ") times " << factor << " gave "
                  << after.value(i) << " (bits " << after.bits(i) << "), not bits "
                  << expected(format, before.bits(i), factor) << std::dec << ", seed "
                  << reference::seed();
  }
}

TEST(KernelScale, RoundsEvery16BitPatternToNearestEvenOnEverySimdTarget) {
  for (const Format& format : {kFormats[2], kFormats[3]}) {
    Buffer all(format, 65536);
    for (std::size_t i = 0; i < all.count(); ++i) all.set_bits(i, i);
    for (const double factor : kFactors) {
      for (const reference::Target& target : reference::simd_targets()) {
        const reference::OnlyTarget only(target.bit);
        SCOPED_TRACE(target.name);
        Buffer scaled = all.moved(1);
        scale_buffer(scaled, factor);
        expect_scaled(all, scaled, factor);
      }
    }
  }
}

TEST(KernelScale, AgreesWithTheReferenceForRandomPatternsAndSizes) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const std::size_t count : {0, 1, 2, 15, 16, 17, 31, 33, 65, 1009, 50021}) {
      for (const Content content : {Content::kWide, Content::kSubnormal, Content::kNearMax,
                                    Content::kBroken, Content::kAllBroken}) {
        Buffer before(format, count, random() % 64);
        fill(before, content, random);
        const double factor = kFactors[random() % std::size(kFactors)];
        Buffer after = before.moved(random() % 64);
        scale_buffer(after, factor, 1 + random() % 3);
        SCOPED_TRACE(name_of(content) + ", " + std::to_string(count) + " elements");
        expect_scaled(before, after, factor);
      }
    }
  }
}

TEST(KernelScale, IsTheSameBitsForEverySimdTargetAndNumberOfThreads) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const Content content : {Content::kWide, Content::kBroken, Content::kAllBroken}) {
      Buffer before(format, 300007, 3);
      fill(before, content, random);
      for (const double factor : {0.37, 0x1.8p-130, 3.0}) {
        Buffer first = before.moved(0);
        scale_buffer(first, factor);
        const std::size_t bytes = first.count() * format.bytes;
        for (const unsigned threads : {2u, 3u, 7u}) {
          Buffer other = before.moved(threads);
          scale_buffer(other, factor, threads);
          EXPECT_EQ(std::memcmp(first.data(), other.data(), bytes), 0)
              << format.name << ", " << threads << " threads, seed " << reference::seed();
        }
        for (const reference::Target& target : reference::simd_targets()) {
          const reference::OnlyTarget only(target.bit);
          Buffer other = before.moved(1);
          scale_buffer(other, factor);
          EXPECT_EQ(std::memcmp(first.data(), other.data(), bytes), 0)
              << format.name << ", " << target.name << ", seed " << reference::seed();
        }
      }
    }
  }
}

TEST(KernelScale, TakesAListOfMixedDtypesAndTouchesNothingBeside) {
  std::mt19937_64 random(reference::seed());
  std::vector<Buffer> before;
  std::vector<Buffer> after;
  for (int i = 0; i < 200; ++i) {
    const std::size_t count = i % 7 == 0 ? 0 : i % 40 == 3 ? 100003 : random() % 3000;
    // One more element than is scaled, as a guard behind it.
    before.emplace_back(kFormats[i % 4], count + 1, random() % 8);
    fill(before.back(), Content::kGradient, random);
    after.push_back(before.back());
  }
  std::vector<Tensor> tensors;
  for (Buffer& buffer : after) {
    tensors.push_back({buffer.data(), buffer.count() - 1, buffer.format().dtype});
  }
  ParallelFor pool(3);
  scale(tensors, 0.37, pool);
  for (std::size_t i = 0; i < before.size(); ++i) {
    SCOPED_TRACE("tensor " + std::to_string(i));
    const std::size_t last = before[i].count() - 1;
    EXPECT_EQ(after[i].bits(last), before[i].bits(last));
    after[i].set_bits(last, expected(before[i].format(), before[i].bits(last), 0.37));
    expect_scaled(before[i], after[i], 0.37);
  }
}

TEST(KernelScale, TouchesNoMemoryWhenTheFactorIsOne) {
  // Memory that must not even be read: an access would end the test with a signal.
  void* memory = mmap(nullptr, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const Tensor tensor{memory, (1 << 20) / 4, DType::kFloat32};
  ParallelFor pool(2);
  scale({&tensor, 1}, 1.0, pool);
  EXPECT_EQ(munmap(memory, 1 << 20), 0);
}

TEST(KernelScale, KeepsInfinityAndNaNUnderAFactorOfZero) {
  for (const Format& format : kFormats) {
    Buffer buffer(format, 3);
    buffer.set_bits(0, reference::infinity_bits(format));
    buffer.set_bits(1, reference::infinity_bits(format) + 1);
    buffer.set_bits(2, reference::encode(format, 1.5));
    scale_buffer(buffer, 0.0);
    EXPECT_EQ(buffer.value(0), std::numeric_limits<double>::infinity()) << format.name;
    EXPECT_TRUE(std::isnan(buffer.value(1))) << format.name;
    EXPECT_EQ(buffer.value(2), 0.0) << format.name;
  }
}

TEST(KernelScale, RoundsFp16BeyondItsRangeToInfinity) {
  Buffer buffer(kFormats[3], 2);
  buffer.set_bits(0, 0x7bff);
  buffer.set_bits(1, 0xfbff);
  scale_buffer(buffer, 1.001);
  EXPECT_EQ(buffer.bits(0), 0x7c00u);
  EXPECT_EQ(buffer.bits(1), 0xfc00u);
}

TEST(KernelScale, ClampsAfterScalingAndLeavesNaNOnEverySimdTarget) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const Content content : {Content::kGradient, Content::kNearMax, Content::kBroken}) {
      Buffer before(format, 1037);
      reference::fill(before, content, random);
      for (const Scaling scaling : {Scaling{1.0, 0.25}, Scaling{0.5, 1e-3}, Scaling{3.0, 1e30}}) {
        for (const reference::Target& target : reference::simd_targets()) {
          const reference::OnlyTarget only(target.bit);
          SCOPED_TRACE(target.name);
          Buffer after = before.moved(3);
          ParallelFor pool(1);
          const Tensor tensor{after.data(), after.count(), format.dtype};
          scale({&tensor, 1}, {&scaling, 1}, pool);
          for (std::size_t i = 0; i < before.count(); ++i) {
            const double value =
                reference::decode(format, expected(format, before.bits(i), scaling.factor));
            if (std::isnan(value)) {
              ASSERT_TRUE(std::isnan(after.value(i))) << i;
              continue;
            }
            double limit = scaling.limit;
            if (format.dtype != DType::kFloat64) limit = static_cast<float>(limit);
            const double clamped = std::max(-limit, std::min(limit, value));
            // Scaling rounds to float before the clamp, the element's type comes last: what lies
            // within the limit is as without one, the rest is the limit itself.
            const std::uint64_t bits = std::fabs(value) <= limit
                                           ? expected(format, before.bits(i), scaling.factor)
                                           : reference::encode(format, clamped);
            ASSERT_EQ(after.bits(i), bits) << format.name << " " << before.value(i);
          }
        }
      }
    }
  }
}

TEST(KernelScale, GivesEachTensorItsOwnFactorAndLimit) {
  std::vector<float> a(50000, 2.0F);
  std::vector<float> b(300, 2.0F);
  std::vector<float> c(70000, 2.0F);
  const std::vector<Tensor> tensors{{a.data(), a.size(), DType::kFloat32},
                                    {b.data(), b.size(), DType::kFloat32},
                                    {c.data(), c.size(), DType::kFloat32}};
  const std::vector<Scaling> scalings{{0.5, 0}, {1, 0}, {4, 1.5}};
  ParallelFor pool(2);
  scale(tensors, scalings, pool);
  EXPECT_EQ(a, std::vector<float>(a.size(), 1.0F));
  EXPECT_EQ(b, std::vector<float>(b.size(), 2.0F));
  EXPECT_EQ(c, std::vector<float>(c.size(), 1.5F));
}

}  // namespace
}  // namespace gradwarden::kernels
