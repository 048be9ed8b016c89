// One element at a time: how the four dtypes lie in memory and what their bits mean. The slow paths
// use it (a block with non-finite elements, an unusual norm type); the SIMD code agrees with it.
#ifndef GRADWARDEN_KERNELS_CPU_ELEMENT_H_
#define GRADWARDEN_KERNELS_CPU_ELEMENT_H_

#include <bit>
#include <cstdint>

#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels {

template <DType kType>
struct Element;

template <>
struct Element<DType::kFloat64> {
  using Bits = std::uint64_t;
  static constexpr Bits kInfinity = 0x7ff0000000000000;
  static double magnitude(Bits abs) { return std::bit_cast<double>(abs); }
};

template <>
struct Element<DType::kFloat32> {
  using Bits = std::uint32_t;
  static constexpr Bits kInfinity = 0x7f800000;
  static double magnitude(Bits abs) { return std::bit_cast<float>(abs); }
};

template <>
struct Element<DType::kBFloat16> {
  using Bits = std::uint16_t;
  static constexpr Bits kInfinity = 0x7f80;
  static double magnitude(Bits abs) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(abs) << 16);
  }
};

template <>
struct Element<DType::kFloat16> {
  using Bits = std::uint16_t;
  static constexpr Bits kInfinity = 0x7c00;
  // Moved to float32's place the bits mean a value 2^112 times too small, subnormals included.
  static double magnitude(Bits abs) {
    return static_cast<double>(std::bit_cast<float>(static_cast<std::uint32_t>(abs) << 13)) *
           0x1p112;
  }
};

// All but the sign. Compared as integers these order as the magnitudes do: finite values lie below
// kInfinity, NaNs above.
template <DType kType>
constexpr auto abs_bits(typename Element<kType>::Bits bits) {
  using Bits = typename Element<kType>::Bits;
  return static_cast<Bits>(bits & (static_cast<Bits>(~Bits{0}) >> 1));
}

// Calls f.template operator()<dtype>().
template <typename F>
auto with_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kFloat64:
      return f.template operator()<DType::kFloat64>();
    case DType::kBFloat16:
      return f.template operator()<DType::kBFloat16>();
    case DType::kFloat16:
      return f.template operator()<DType::kFloat16>();
    case DType::kFloat32:
      break;
  }
  return f.template operator()<DType::kFloat32>();
}

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_ELEMENT_H_
