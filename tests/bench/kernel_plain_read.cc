#include "tests/bench/kernel_plain_read.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/bench/kernel_plain_read.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradwarden::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Eight sums in flight, so that the loop waits for memory and nothing else.
std::uint64_t PlainSum(const void* data, std::uint64_t bytes) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::uint64_t width = hn::Lanes(d);
  const auto* words = static_cast<const std::uint64_t*>(data);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (std::uint64_t i = 0; i < bytes / 8; i += 8 * width) {
    s0 = hn::Add(s0, hn::LoadU(d, words + i));
    s1 = hn::Add(s1, hn::LoadU(d, words + i + width));
    s2 = hn::Add(s2, hn::LoadU(d, words + i + 2 * width));
    s3 = hn::Add(s3, hn::LoadU(d, words + i + 3 * width));
    s4 = hn::Add(s4, hn::LoadU(d, words + i + 4 * width));
    s5 = hn::Add(s5, hn::LoadU(d, words + i + 5 * width));
    s6 = hn::Add(s6, hn::LoadU(d, words + i + 6 * width));
    s7 = hn::Add(s7, hn::LoadU(d, words + i + 7 * width));
  }
  s0 =
      hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  return hn::GetLane(hn::SumOfLanes(d, s0));
}

void PlainUpdate(void* data, std::uint64_t bytes) {
  const hn::ScalableTag<std::uint64_t> d;
  const std::uint64_t width = hn::Lanes(d);
  auto* words = static_cast<std::uint64_t*>(data);
  // Opaque to the compiler, so that the store cannot be dropped.
  std::uint64_t nothing = 0;
  asm volatile("" : "+r"(nothing));
  const auto add = hn::Set(d, nothing);
  for (std::uint64_t i = 0; i < bytes / 8; i += 2 * width) {
    hn::StoreU(hn::Add(hn::LoadU(d, words + i), add), d, words + i);
    hn::StoreU(hn::Add(hn::LoadU(d, words + i + width), add), d, words + i + width);
  }
}

}  // namespace gradwarden::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradwarden::bench {

HWY_EXPORT(PlainSum);
HWY_EXPORT(PlainUpdate);

std::uint64_t plain_sum(const void* data, std::uint64_t bytes) noexcept {
  return HWY_DYNAMIC_DISPATCH(PlainSum)(data, bytes);
}

void plain_update(void* data, std::uint64_t bytes) noexcept {
  HWY_DYNAMIC_DISPATCH(PlainUpdate)(data, bytes);
}

}  // namespace gradwarden::bench
#endif  // HWY_ONCE
