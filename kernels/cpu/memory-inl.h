// Memory access for each SIMD target: unaligned loads and stores, and float16 to and from float32
// by the F16C instructions where there are some. Included once per target, as Highway wants it;
// Highway's own emulation of float16 drops Inf and NaN and truncates.
#if defined(GRADWARDEN_MEMORY_TOGGLE) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWARDEN_MEMORY_TOGGLE
#undef GRADWARDEN_MEMORY_TOGGLE
#else
#define GRADWARDEN_MEMORY_TOGGLE
#endif

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

#undef GRADWARDEN_HAVE_F16C
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
#define GRADWARDEN_HAVE_F16C 1
#else
#define GRADWARDEN_HAVE_F16C 0
#endif

HWY_BEFORE_NAMESPACE();
namespace gradwarden::kernels::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// `half` has one 16-bit pattern per 32-bit lane. Exact; needs subnormals kept.
template <class D, class V32>
HWY_INLINE hn::Vec<D> half_lanes_to_float(D d, V32 half) {
  const hn::RebindToUnsigned<D> du;
  const auto abs = hn::ShiftLeft<13>(hn::And(half, hn::Set(du, 0x7fffu)));
  const auto sign = hn::ShiftLeft<16>(hn::And(half, hn::Set(du, 0x8000u)));
  // In float32's place the bits mean a value 2^112 times too small, subnormals included.
  const auto finite = hn::BitCast(du, hn::Mul(hn::BitCast(d, abs), hn::Set(d, 0x1p112F)));
  const auto special = hn::Or(abs, hn::Set(du, 0x7f800000u));
  const auto is_special = hn::Gt(abs, hn::Set(du, 0x7bffu << 13));
  return hn::BitCast(d, hn::Or(hn::IfThenElse(is_special, special, finite), sign));
}

// To nearest even, beyond 65504 + half a unit to infinity; NaN keeps the upper payload, made quiet.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> float_to_half_lanes(D d, hn::Vec<D> value) {
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, value);
  const auto abs = hn::And(bits, hn::Set(du, 0x7fffffffu));
  const auto sign = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 0x8000u));
  // Normal results: move the exponent, round at bit 13; the carry may reach infinity, as it should.
  const auto odd = hn::And(hn::ShiftRight<13>(abs), hn::Set(du, 1u));
  const auto rebased = hn::Sub(abs, hn::Set(du, 112u << 23));
  const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(rebased, hn::Set(du, 0xfffu)), odd));
  // Subnormal results: at 0.5 the unit of float32 is that of the smallest half.
  const auto half = hn::Set(d, 0.5F);
  const auto tiny =
      hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, abs), half)), hn::BitCast(du, half));
  const auto nan =
      hn::Or(hn::And(hn::ShiftRight<13>(abs), hn::Set(du, 0x3ffu)), hn::Set(du, 0x7e00u));
  auto result = hn::IfThenElse(hn::Lt(abs, hn::Set(du, 113u << 23)), tiny, normal);
  result = hn::IfThenElse(hn::Gt(abs, hn::Set(du, 0x477fefffu)), hn::Set(du, 0x7c00u), result);
  result = hn::IfThenElse(hn::Gt(abs, hn::Set(du, 0x7f800000u)), nan, result);
  return hn::Or(result, sign);
}

// Highway's one-lane target dereferences the pointer, which has to be aligned then.
template <class D>
HWY_INLINE hn::Vec<D> load_bytes(D d, const std::uint8_t* from) {
#if HWY_TARGET == HWY_SCALAR
  hn::TFromD<D> lane;
  std::memcpy(&lane, from, sizeof(lane));
  return hn::Set(d, lane);
#else
  return hn::LoadU(d, reinterpret_cast<const hn::TFromD<D>*>(from));
#endif
}

template <class D>
HWY_INLINE void store_bytes(hn::Vec<D> value, D d, std::uint8_t* to) {
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  const hn::TFromD<D> lane = hn::GetLane(value);
  std::memcpy(to, &lane, sizeof(lane));
#else
  hn::StoreU(value, d, reinterpret_cast<hn::TFromD<D>*>(to));
#endif
}

// Loads as many halves as `d` has floats.
template <class D>
HWY_INLINE hn::Vec<D> load_half(D d, const std::uint8_t* from) {
#if GRADWARDEN_HAVE_F16C
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, load_bytes(d16, from));
#else
  const hn::Rebind<std::uint16_t, D> d16;
  return half_lanes_to_float(d, hn::PromoteTo(hn::RebindToUnsigned<D>(), load_bytes(d16, from)));
#endif
}

template <class D>
HWY_INLINE void store_half(D d, hn::Vec<D> value, std::uint8_t* to) {
#if GRADWARDEN_HAVE_F16C
  const hn::Rebind<hwy::float16_t, D> d16;
  store_bytes(hn::DemoteTo(d16, value), d16, to);
#else
  const hn::Rebind<std::uint16_t, D> d16;
  const auto half = hn::BitCast(hn::RebindToSigned<D>(), float_to_half_lanes(d, value));
  store_bytes(hn::DemoteTo(d16, half), d16, to);
#endif
}

}  // namespace gradwarden::kernels::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
