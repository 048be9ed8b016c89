#include "kernels/cpu/statistics_simd.h"

#include <type_traits>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/statistics_simd.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "kernels/cpu/memory-inl.h"

#ifdef __clang__
#define GRADWARDEN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define GRADWARDEN_UNROLL _Pragma("GCC unroll 64")
#endif

HWY_BEFORE_NAMESPACE();
namespace gradwarden::kernels::simd::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using D64 = hn::ScalableTag<double>;
using V64 = hn::Vec<D64>;
inline constexpr std::size_t kWidth = hn::MaxLanes(D64());
inline constexpr std::size_t kGroups = kLanes / kWidth;
static_assert(kLanes % kWidth == 0);

// Group g of the row at `row` as float64.
template <typename T>
HWY_INLINE V64 load_group(const std::uint8_t* row, std::size_t g) {
  const hn::Rebind<float, D64> d32;
  if constexpr (std::is_same_v<T, double>) {
    return load_bytes(D64(), row + g * kWidth * sizeof(T));
  } else if constexpr (std::is_same_v<T, float>) {
    return hn::PromoteTo(D64(), load_bytes(d32, row + g * kWidth * sizeof(T)));
  } else if constexpr (std::is_same_v<T, hwy::float16_t>) {
    return hn::PromoteTo(D64(), load_half(d32, row + g * kWidth * sizeof(T)));
  } else {
    // bfloat16 is the upper half of a float32. A 32-bit word has two of them: even groups take the
    // elements of even index from kWidth words, odd groups the others.
    const hn::Rebind<std::uint32_t, D64> du32;
    const auto words = load_bytes(du32, row + g / 2 * kWidth * sizeof(std::uint32_t));
    const auto bits =
        g % 2 == 0 ? hn::ShiftLeft<16>(words) : hn::And(words, hn::Set(du32, 0xffff0000u));
    return hn::PromoteTo(D64(), hn::BitCast(d32, bits));
  }
}

// First of the kWidth lanes that group g adds to: elements of a row go to lanes in order, but of
// bfloat16 the even ones to the lower half and the odd ones to the upper.
template <typename T>
constexpr std::size_t lane_of_group(std::size_t g) {
  if constexpr (std::is_same_v<T, hwy::bfloat16_t>) {
    return g / 2 * kWidth + (g % 2) * (kLanes / 2);
  }
  return g * kWidth;
}

// The square of an element of at most 32 bits is exact in float64, so that it does not matter
// whether the target has a fused multiply-add. It would for float64.
template <typename T, Power kPower>
HWY_INLINE V64 add_power(V64 sum, V64 value) {
  if constexpr (kPower == Power::kCube) {
    return hn::Add(sum, hn::Abs(hn::Mul(hn::Mul(value, value), value)));
  } else if constexpr (kPower == Power::kFourth) {
    const V64 square = hn::Mul(value, value);
    return hn::Add(sum, hn::Mul(square, square));
  } else if constexpr (kPower == Power::kRoot) {
    return hn::Add(sum, hn::Sqrt(hn::Abs(value)));
  } else if constexpr (kPower != Power::kSquare) {
    return hn::Add(sum, hn::Abs(value));
  } else if constexpr (std::is_same_v<T, double>) {
    return hn::Add(sum, hn::Mul(value, value));
  } else {
    return hn::MulAdd(value, value, sum);
  }
}

template <typename T, Power kPower>
RowTotals add_rows_of(const std::uint8_t* row, std::size_t rows, double* lanes) {
  using Int = hwy::MakeSigned<T>;
  const hn::ScalableTag<Int> di;
  constexpr std::size_t kIntWidth = hn::MaxLanes(di);
  constexpr std::size_t kIntGroups = kLanes / kIntWidth;
  const auto all_but_sign = hn::Set(di, hwy::LimitsMax<Int>());
  const auto one = hn::Set(di, Int{1});
  auto largest = hn::Zero(di);
  auto nonzero = hn::Zero(di);

  V64 sums[kGroups];
  GRADWARDEN_UNROLL
  for (std::size_t g = 0; g < kGroups; ++g) {
    sums[g] = hn::LoadU(D64(), lanes + lane_of_group<T>(g));
  }
  for (; rows != 0; --rows, row += kLanes * sizeof(T)) {
    GRADWARDEN_UNROLL
    for (std::size_t g = 0; g < kIntGroups; ++g) {
      const auto bits = load_bytes(di, row + g * kIntWidth * sizeof(T));
      const auto abs = hn::And(bits, all_but_sign);
      largest = hn::Max(largest, abs);
      nonzero = hn::Add(nonzero, hn::Min(abs, one));
    }
    if constexpr (kPower != Power::kNone) {
      GRADWARDEN_UNROLL
      for (std::size_t g = 0; g < kGroups; ++g) {
        sums[g] = add_power<T, kPower>(sums[g], load_group<T>(row, g));
      }
    }
  }
  GRADWARDEN_UNROLL
  for (std::size_t g = 0; g < kGroups; ++g) {
    hn::StoreU(sums[g], D64(), lanes + lane_of_group<T>(g));
  }

  Int largest_lanes[kIntWidth];
  Int nonzero_lanes[kIntWidth];
  hn::StoreU(largest, di, largest_lanes);
  hn::StoreU(nonzero, di, nonzero_lanes);
  RowTotals totals;
  Int top = 0;
  for (std::size_t i = 0; i < kIntWidth; ++i) {
    top = largest_lanes[i] > top ? largest_lanes[i] : top;
    totals.nonzero += static_cast<std::uint64_t>(nonzero_lanes[i]);
  }
  totals.max_abs_bits = static_cast<std::uint64_t>(top);
  return totals;
}

template <typename T>
RowTotals add_rows_with(const void* data, std::size_t rows, Power power, double* lanes) {
  const auto* bytes = static_cast<const std::uint8_t*>(data);
  switch (power) {
    case Power::kNone:
      return add_rows_of<T, Power::kNone>(bytes, rows, lanes);
    case Power::kAbs:
      return add_rows_of<T, Power::kAbs>(bytes, rows, lanes);
    case Power::kCube:
      return add_rows_of<T, Power::kCube>(bytes, rows, lanes);
    case Power::kFourth:
      return add_rows_of<T, Power::kFourth>(bytes, rows, lanes);
    case Power::kRoot:
      return add_rows_of<T, Power::kRoot>(bytes, rows, lanes);
    case Power::kSquare:
      break;
  }
  return add_rows_of<T, Power::kSquare>(bytes, rows, lanes);
}

RowTotals AddRows(const void* data, std::size_t rows, DType dtype, Power power, double* lanes) {
  switch (dtype) {
    case DType::kFloat64:
      return add_rows_with<double>(data, rows, power, lanes);
    case DType::kBFloat16:
      return add_rows_with<hwy::bfloat16_t>(data, rows, power, lanes);
    case DType::kFloat16:
      return add_rows_with<hwy::float16_t>(data, rows, power, lanes);
    case DType::kFloat32:
      break;
  }
  return add_rows_with<float>(data, rows, power, lanes);
}

}  // namespace gradwarden::kernels::simd::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradwarden::kernels::simd {

HWY_EXPORT(AddRows);

RowTotals add_rows(const void* data, std::size_t rows, DType dtype, Power power,
                   double* lanes) noexcept {
  return HWY_DYNAMIC_DISPATCH(AddRows)(data, rows, dtype, power, lanes);
}

}  // namespace gradwarden::kernels::simd
#endif  // HWY_ONCE
