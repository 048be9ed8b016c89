#include "kernels/cpu/scale_simd.h"

#include <cstddef>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/cpu/simd_targets.h"
#include "kernels/numerics/clip.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scale_simd.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/memory-inl.h"

HWY_BEFORE_NAMESPACE();
namespace gradwarden::kernels::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Both factors in order, each product rounded, then the limit (infinite: none). Infinity is not
// multiplied: times a factor of 0 it would become NaN. A product with NaN is that NaN, made quiet,
// and compares as beyond no limit.
template <class D>
HWY_INLINE hn::Vec<D> scaled(D d, hn::Vec<D> value, hn::Vec<D> first, hn::Vec<D> second,
                             hn::Vec<D> limit) {
  const auto product = hn::Mul(hn::Mul(value, first), second);
  const auto infinity = hn::Set(d, std::numeric_limits<hn::TFromD<D>>::infinity());
  const auto free = hn::IfThenElse(hn::Eq(hn::Abs(value), infinity), value, product);
  return hn::IfThenElse(hn::Gt(hn::Abs(free), limit), hn::CopySign(limit, free), free);
}

// float32 to bfloat16 in the upper 16 bits of each lane, to nearest even; the carry may reach
// infinity, as it should. The lower bits are left over. NaN, which a product has made quiet, keeps
// its upper payload.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> round_to_bfloat16(D /*d*/, hn::Vec<D> value) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd);
  return hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(value)), bits, rounded);
}

// One vector of T: what is loaded, scaled and stored at a time. kPlain: one factor above 0 and no
// limit, so that the product is all there is to it; 16-bit types would otherwise be bound by
// computing, not by memory.
template <typename T, bool kPlain>
class Scaler {
 public:
  using Value = std::conditional_t<std::is_same_v<T, double>, double, float>;
  using D = hn::ScalableTag<Value>;
  // Two bfloat16 lie in one 32-bit lane.
  static constexpr std::size_t kElements =
      hn::MaxLanes(D()) * (std::is_same_v<T, hwy::bfloat16_t> ? 2 : 1);

  Scaler(double first, double second, double limit)
      : first_(hn::Set(D(), static_cast<Value>(first))),
        second_(hn::Set(D(), static_cast<Value>(second))),
        limit_(hn::Set(D(), static_cast<Value>(limit))) {}

  HWY_INLINE void operator()(std::uint8_t* at) const {
    const D d;
    if constexpr (std::is_same_v<T, hwy::float16_t>) {
      store_half(d, scale(load_half(d, at)), at);
    } else if constexpr (std::is_same_v<T, hwy::bfloat16_t>) {
      const hn::RebindToUnsigned<D> du;
      const auto words = load_bytes(du, at);
      const auto low = hn::BitCast(d, hn::ShiftLeft<16>(words));
      const auto high = hn::BitCast(d, hn::And(words, hn::Set(du, 0xffff0000u)));
      const auto new_low = hn::ShiftRight<16>(round_to_bfloat16(d, scale(low)));
      const auto new_high = hn::And(round_to_bfloat16(d, scale(high)), hn::Set(du, 0xffff0000u));
      store_bytes(hn::Or(new_low, new_high), du, at);
    } else {
      store_bytes(scale(load_bytes(d, at)), d, at);
    }
  }

 private:
  HWY_INLINE hn::Vec<D> scale(hn::Vec<D> value) const {
    if constexpr (kPlain) {
      return hn::Mul(value, first_);
    } else {
      return scaled(D(), value, first_, second_, limit_);
    }
  }

  hn::Vec<D> first_;
  hn::Vec<D> second_;
  hn::Vec<D> limit_;
};

template <typename T, bool kPlain>
void scale_all(std::uint8_t* data, std::uint64_t count, const Scaler<T, kPlain>& scale_vector) {
  constexpr std::uint64_t kStep = Scaler<T, kPlain>::kElements;
  std::uint64_t i = 0;
  for (; i + 2 * kStep <= count; i += 2 * kStep) {
    scale_vector(data + i * sizeof(T));
    scale_vector(data + (i + kStep) * sizeof(T));
  }
  for (; i < count; i += kStep) {
    const std::uint64_t bytes = (count - i < kStep ? count - i : kStep) * sizeof(T);
    std::uint8_t last[kStep * sizeof(T)] = {};
    std::memcpy(last, data + i * sizeof(T), bytes);
    scale_vector(last);
    std::memcpy(data + i * sizeof(T), last, bytes);
  }
}

template <typename T>
void scale_as(std::uint8_t* data, std::uint64_t count, double first, double second, double limit) {
  if (first > 0 && second == 1 && limit == std::numeric_limits<double>::infinity()) {
    scale_all(data, count, Scaler<T, true>(first, second, limit));
  } else {
    scale_all(data, count, Scaler<T, false>(first, second, limit));
  }
}

void ScaleElements(void* data, std::uint64_t count, DType dtype, const Scaling& scaling) {
  const double limit = scaling.limit > 0 ? scaling.limit : std::numeric_limits<double>::infinity();
  auto* bytes = static_cast<std::uint8_t*>(data);
  if (dtype == DType::kFloat64) return scale_as<double>(bytes, count, scaling.factor, 1.0, limit);
  const Float32Factor split = split_factor(scaling.factor);
  switch (dtype) {
    case DType::kBFloat16:
      return scale_as<hwy::bfloat16_t>(bytes, count, split.first, split.second, limit);
    case DType::kFloat16:
      return scale_as<hwy::float16_t>(bytes, count, split.first, split.second, limit);
    default:
      return scale_as<float>(bytes, count, split.first, split.second, limit);
  }
}

}  // namespace gradwarden::kernels::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradwarden::kernels::simd {

HWY_EXPORT(ScaleElements);

void scale_elements(void* data, std::uint64_t count, DType dtype, const Scaling& scaling) noexcept {
  HWY_DYNAMIC_DISPATCH(ScaleElements)(data, count, dtype, scaling);
}

}  // namespace gradwarden::kernels::simd
#endif  // HWY_ONCE
