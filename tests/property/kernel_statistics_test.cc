#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cfenv>
#include <cmath>
#include <limits>
#include <memory>
#include <sstream>

#include "kernels/cpu/statistics.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "tests/property/kernel_reference.h"

namespace gradwarden::kernels {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kThreadSanitizer = false;
#endif

using reference::Buffer;
using reference::Content;
using reference::Format;
using reference::kFormats;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNorms[] = {2.0, 1.0, kInf, 0.5, 3.0, 4.0, 2.5};

std::vector<Statistics> statistics_of(const std::vector<const Buffer*>& buffers, double p,
                                      unsigned threads) {
  std::vector<ConstTensor> tensors;
  for (const Buffer* buffer : buffers) {
    tensors.push_back(
        {buffer->count() == 0 ? nullptr : buffer->data(), buffer->count(), buffer->format().dtype});
  }
  ParallelFor pool(threads);
  StatisticsKernel kernel(pool);
  kernel.plan(tensors);
  std::vector<Statistics> out(tensors.size());
  kernel.run(tensors, p, out);
  return out;
}

Statistics statistics_of(const Buffer& buffer, double p, unsigned threads = 1) {
  return statistics_of(std::vector<const Buffer*>{&buffer}, p, threads).front();
}

// Compares bits, so that equal zeros of different sign or two NaNs are told apart.
bool same_bits(const Statistics& a, const Statistics& b) {
  return std::memcmp(&a.power_sum, &b.power_sum, sizeof(double)) == 0 &&
         std::memcmp(&a.max_abs, &b.max_abs, sizeof(double)) == 0 && a.nan_count == b.nan_count &&
         a.inf_count == b.inf_count && a.zero_count == b.zero_count &&
         a.first_non_finite == b.first_non_finite;
}

// Relative; equal values have none.
long double relative_error(long double got, long double wanted) {
  return got == wanted ? 0.0L : std::fabs((got - wanted) / wanted);
}

void expect_agrees(const Buffer& buffer, double p, const Statistics& got) {
  const reference::Expected wanted = reference::expected_statistics(buffer, p);
  EXPECT_EQ(got.max_abs, wanted.max_abs);
  EXPECT_EQ(got.nan_count, wanted.nan_count);
  EXPECT_EQ(got.inf_count, wanted.inf_count);
  EXPECT_EQ(got.zero_count, wanted.zero_count);
  EXPECT_EQ(got.first_non_finite, wanted.first_non_finite);
  if (std::isinf(p)) {
    EXPECT_EQ(got.power_sum, 0.0);
    return;
  }
  EXPECT_LE(relative_error(got.power_sum, wanted.power_sum), 1e-12L)
      << got.power_sum << " instead of " << static_cast<double>(wanted.power_sum);
  const double norm = norm_of(got.power_sum, got.max_abs, p);
  const long double wanted_norm = std::pow(wanted.power_sum, 1.0L / p);
  EXPECT_LE(relative_error(norm, wanted_norm), 1e-6L);
}

// fp64 subnormals have no square in float64, and large fp64 no fourth power: the contract ends
// where powers do not fit.
bool powers_fit(const Format& format, Content content, double p) {
  if (format.dtype != DType::kFloat64) return true;
  if (content == Content::kSubnormal) return p <= 1;
  return p <= 3 || content == Content::kGradient;
}

std::string describe(const Buffer& buffer, Content content, double p) {
  std::ostringstream text;
  text << buffer.format().name << ", " << buffer.count() << " elements, " << name_of(content)
       << ", p = " << p << ", seed " << reference::seed();
  return text.str();
}

void check_all_norms(const Format& format, std::size_t count, Content content,
                     std::mt19937_64& random) {
  Buffer buffer(format, count, random() % 64);
  fill(buffer, content, random);
  for (const double p : kNorms) {
    // The reference of unusual norms is slow; their code does not depend on the size.
    if (p != 1.0 && p != 2.0 && !std::isinf(p) && count > 50000) continue;
    if (!powers_fit(format, content, p)) continue;
    SCOPED_TRACE(describe(buffer, content, p));
    expect_agrees(buffer, p, statistics_of(buffer, p, 1 + random() % 3));
  }
}

TEST(KernelStatistics, AgreeWithTheReferenceForSmallAndOddSizes) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const std::size_t count : {0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 127, 1009, 2048, 2049}) {
      for (const Content content : reference::kFiniteContents) {
        check_all_norms(format, count, content, random);
      }
      check_all_norms(format, count, Content::kBroken, random);
      check_all_norms(format, count, Content::kAllBroken, random);
    }
  }
}

TEST(KernelStatistics, AgreeWithTheReferenceAcrossBlockAndChunkBorders) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const std::size_t count : {16383, 16384, 16417, 65535, 65536, 65537, 131101}) {
      for (const Content content : {Content::kGradient, Content::kWide, Content::kBroken}) {
        check_all_norms(format, count, content, random);
      }
    }
  }
}

TEST(KernelStatistics, AgreeWithTheReferenceForMoreThanAMillionElements) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    check_all_norms(format, 1048583, Content::kGradient, random);
    check_all_norms(format, 1300021, Content::kBroken, random);
  }
}

TEST(KernelStatistics, KeepPrecisionAtBothEndsOfTheRange) {
  for (const Format& format : kFormats) {
    if (format.dtype == DType::kFloat64) continue;
    Buffer buffer(format, 100003);
    for (const std::uint64_t bits : {std::uint64_t{1}, reference::infinity_bits(format) - 1}) {
      for (std::size_t i = 0; i < buffer.count(); ++i) buffer.set_bits(i, bits);
      const double norm = std::sqrt(statistics_of(buffer, 2.0).power_sum);
      const double wanted = std::sqrt(100003.0) * reference::decode(format, bits);
      EXPECT_LE(relative_error(norm, wanted), 1e-13L) << format.name << " bits " << bits;
    }
  }
}

TEST(KernelStatistics, SaturateToInfinityWhereSquaresOfFp64LeaveTheRange) {
  Buffer buffer(kFormats[0], 70001);
  for (std::size_t i = 0; i < buffer.count(); ++i) {
    buffer.set_bits(i, reference::encode(kFormats[0], i % 2 == 0 ? 1e200 : -1e300));
  }
  const Statistics got = statistics_of(buffer, 2.0, 2);
  EXPECT_EQ(got.power_sum, kInf);
  EXPECT_EQ(got.max_abs, 1e300);
  EXPECT_FALSE(got.non_finite());
  EXPECT_EQ(got.first_non_finite, kNoIndex);
}

TEST(KernelStatistics, FindTheFirstNonFiniteElementWhereverItIs) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    Buffer buffer(format, 200003);
    fill(buffer, Content::kGradient, random);
    const std::uint64_t nan = reference::infinity_bits(format) + 1;
    for (const std::size_t where : {200002, 200000, 131072, 65536, 65535, 16384, 2048, 31, 0}) {
      SCOPED_TRACE(std::string(format.name) + " at " + std::to_string(where));
      Buffer copy = buffer.moved(1);
      copy.set_bits(where, nan);
      copy.set_bits(200002, reference::infinity_bits(format));
      const Statistics got = statistics_of(copy, 2.0, 3);
      EXPECT_EQ(got.first_non_finite, where);
      EXPECT_EQ(got.nan_count + got.inf_count, where == 200002 ? 1u : 2u);
      expect_agrees(copy, 2.0, got);
    }
  }
}

TEST(KernelStatistics, AreTheSameBitsForEveryNumberOfThreads) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const Content content : {Content::kWide, Content::kBroken}) {
      Buffer buffer(format, 400009);
      fill(buffer, content, random);
      for (const double p : {2.0, 1.0, kInf}) {
        const Statistics one = statistics_of(buffer, p, 1);
        for (const unsigned threads : {2u, 3u, 7u}) {
          EXPECT_TRUE(same_bits(one, statistics_of(buffer, p, threads)))
              << describe(buffer, content, p) << ", " << threads << " threads";
        }
      }
    }
  }
}

TEST(KernelStatistics, AreTheSameBitsForEverySimdTarget) {
  const std::vector<reference::Target> targets = reference::simd_targets();
  ASSERT_GE(targets.size(), 1u);
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const std::size_t count : {1, 33, 5003, 100003}) {
      for (const Content content : {Content::kWide, Content::kSubnormal, Content::kNearMax,
                                    Content::kBroken, Content::kAllBroken}) {
        Buffer buffer(format, count, 1);
        fill(buffer, content, random);
        for (const double p : {2.0, 1.0, kInf}) {
          const Statistics best = statistics_of(buffer, p);
          for (const reference::Target& target : targets) {
            const reference::OnlyTarget only(target.bit);
            EXPECT_TRUE(same_bits(best, statistics_of(buffer, p)))
                << describe(buffer, content, p) << ", " << target.name;
          }
        }
      }
    }
  }
}

TEST(KernelStatistics, AreTheSameBitsAtEveryAlignment) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    Buffer buffer(format, 70001);
    fill(buffer, Content::kBroken, random);
    const Statistics aligned = statistics_of(buffer, 2.0);
    for (std::size_t offset = 1; offset < 66; ++offset) {
      EXPECT_TRUE(same_bits(aligned, statistics_of(buffer.moved(offset), 2.0)))
          << format.name << " moved by " << offset << " bytes, seed " << reference::seed();
    }
  }
}

TEST(KernelStatistics, OfATensorDoNotDependOnTheOthersInTheList) {
  std::mt19937_64 random(reference::seed());
  std::vector<std::unique_ptr<Buffer>> owned;
  std::vector<const Buffer*> buffers;
  for (int i = 0; i < 300; ++i) {
    const std::size_t count = i % 50 == 7 ? 150001 : i % 11 == 0 ? 0 : random() % 5000;
    owned.push_back(std::make_unique<Buffer>(kFormats[i % 4], count, random() % 8));
    fill(*owned.back(), i % 5 == 0 ? Content::kBroken : Content::kGradient, random);
    buffers.push_back(owned.back().get());
  }
  const std::vector<Statistics> together = statistics_of(buffers, 2.0, 3);
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    SCOPED_TRACE("tensor " + std::to_string(i));
    EXPECT_TRUE(same_bits(together[i], statistics_of(*buffers[i], 2.0)));
    expect_agrees(*buffers[i], 2.0, together[i]);
  }
}

TEST(KernelStatistics, ServeAChangedListAfterAnotherPlan) {
  std::mt19937_64 random(reference::seed());
  Buffer large(kFormats[1], 200003);
  Buffer small(kFormats[2], 11);
  fill(large, Content::kGradient, random);
  fill(small, Content::kGradient, random);
  const std::vector<ConstTensor> first{{large.data(), large.count(), DType::kFloat32}};
  const std::vector<ConstTensor> second{{small.data(), small.count(), DType::kBFloat16},
                                        {large.data(), 70000, DType::kFloat32}};
  ParallelFor pool(2);
  StatisticsKernel kernel(pool);
  std::vector<Statistics> out(1);
  kernel.plan(first);
  kernel.run(first, 2.0, out);
  const Statistics before = out[0];
  kernel.plan(second);
  out.assign(2, {});
  kernel.run(second, 2.0, out);
  expect_agrees(small, 2.0, out[0]);
  kernel.plan(first);
  kernel.run(first, 2.0, std::span(out).first(1));
  EXPECT_TRUE(same_bits(before, out[0]));
  kernel.plan({});
  kernel.run({}, 2.0, {});
}

TEST(KernelStatistics, IgnoreTheCallersRoundingModeAndFlushToZero) {
  std::mt19937_64 random(reference::seed());
  for (const Format& format : kFormats) {
    for (const Content content : {Content::kSubnormal, Content::kWide}) {
      Buffer buffer(format, 50021);
      fill(buffer, content, random);
      for (const double p : {2.0, 1.0}) {
        const Statistics wanted = statistics_of(buffer, p);
        std::fesetround(FE_UPWARD);
#if defined(__SSE2__)
        const unsigned before = _mm_getcsr();
        _mm_setcsr(before | 0x8040);  // flush to zero, subnormals are zeros
#endif
        const Statistics got = statistics_of(buffer, p);
#if defined(__SSE2__)
        EXPECT_EQ(_mm_getcsr() & 0x8040, 0x8040u);
        _mm_setcsr(before);
#endif
        EXPECT_EQ(std::fegetround(), FE_UPWARD);
        std::fesetround(FE_TONEAREST);
        EXPECT_TRUE(same_bits(wanted, got)) << describe(buffer, content, p);
      }
    }
  }
}

TEST(KernelStatistics, CountBeyondTwoToThe31Elements) {
  if (kThreadSanitizer) GTEST_SKIP() << "its shadow of 4 GiB of reads would need 16 GiB of memory";
  constexpr std::uint64_t kCount = (std::uint64_t{1} << 31) + 100003;
  constexpr std::size_t kBytes = kCount * 2;
  // Never written but in one place, so it costs page tables and no memory.
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const std::uint64_t where = kCount - 7;
  auto* elements = static_cast<std::uint16_t*>(memory);
  elements[where] = 0x7fc0;
  elements[where + 1] = 0x4000;  // 2.0
  const ConstTensor tensor{memory, kCount, DType::kBFloat16};
  ParallelFor pool(2);
  StatisticsKernel kernel(pool);
  kernel.plan({&tensor, 1});
  Statistics got;
  kernel.run({&tensor, 1}, 2.0, {&got, 1});
  munmap(memory, kBytes);
  EXPECT_EQ(got.first_non_finite, where);
  EXPECT_EQ(got.nan_count, 1u);
  EXPECT_EQ(got.zero_count, kCount - 2);
  EXPECT_EQ(got.power_sum, 4.0);
  EXPECT_EQ(got.max_abs, 2.0);
}

}  // namespace
}  // namespace gradwarden::kernels
