// What the bits of each element type mean, and how a result becomes bits again.
#ifndef GRADWARDEN_KERNELS_CUDA_ELEMENT_CUH_
#define GRADWARDEN_KERNELS_CUDA_ELEMENT_CUH_

#include <cstdint>
#include <cstring>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/memory.cuh"
#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::cuda {

GRADWARDEN_HD inline float float_of_bits(std::uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

GRADWARDEN_HD inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

GRADWARDEN_HD inline double double_of_bits(std::uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

GRADWARDEN_HD inline std::uint64_t bits_of_double(double value) {
  std::uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Conversions of fp16. One instruction on a GPU: at memory speed an element of 2 bytes leaves time
// for no more than about 17. The host's version gives the same bits for all but a NaN's payload.
#ifdef __CUDA_ARCH__
__device__ inline float float_of_half(std::uint32_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<unsigned short>(half)));
  return value;
}
__device__ inline std::uint32_t half_of_float(float value) {
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
#else
GRADWARDEN_HD inline float float_of_half(std::uint32_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t magnitude = half & 0x7fffU;
  if (magnitude >= 0x7c00U) return float_of_bits(sign | 0x7f800000U | (magnitude & 0x3ffU) << 13);
  if (magnitude < 0x400U) {  // subnormal: an integer times 2^-24
    const float value = static_cast<float>(magnitude) * float_of_bits(0x33800000U);
    return float_of_bits(sign | bits_of_float(value));
  }
  return float_of_bits(sign | ((magnitude << 13) + 0x38000000U));  // exponent rebased by 112
}
GRADWARDEN_HD inline std::uint32_t half_of_float(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const std::uint32_t sign = bits >> 16 & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return sign | 0x7fffU;
  if (magnitude >= 0x477ff000U) return sign | 0x7c00U;  // 65520 and above round to infinity
  if (magnitude < 0x38800000U) {
    // Below the normal range: adding 0.5 leaves the wanted bits, rounded to even, at the bottom.
    const float shifted = float_of_bits(magnitude) + 0.5F;
    return sign | (bits_of_float(shifted) - 0x3f000000U);
  }
  const std::uint32_t rebased = magnitude - 0x38000000U;
  return sign | (rebased + 0xfffU + (rebased >> 13 & 1U)) >> 13;
}
#endif

// To nearest even; a NaN stays one. In integers, since sm_75 has no instruction for it.
GRADWARDEN_HD inline std::uint32_t bfloat16_of_float(float value) {
  const std::uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return bits >> 16 | 0x40U;
  return (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
}

// An element type: Value is what arithmetic is done in. get() and load() widen; map() rewrites the
// elements of a vector in place by f(Value) -> Value and rounds to nearest even.
struct Float32Element {
  using Value = float;
  using Bits = std::uint32_t;
  static constexpr unsigned kPerVector = 4;
  static constexpr unsigned kBytes = 4;
  __device__ static float widen(Bits bits) { return float_of_bits(bits); }
  __device__ static Bits narrow(float value) { return bits_of_float(value); }
  __device__ static float get(const Vector& v, unsigned i) { return widen(v.word[i]); }
  template <typename F>
  __device__ static Vector map(const Vector& v, F f) {
    Vector out;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) out.word[i] = narrow(f(widen(v.word[i])));
    return out;
  }
};

// The two types of 16 bits differ in their conversions alone.
template <typename Conversion>
struct ShortElement : Conversion {
  using Value = float;
  using Bits = std::uint16_t;
  static constexpr unsigned kPerVector = 8;
  static constexpr unsigned kBytes = 2;
  __device__ static float widen(Bits bits) { return Conversion::low(bits); }
  __device__ static Bits narrow(float value) { return static_cast<Bits>(Conversion::bits(value)); }
  __device__ static float get(const Vector& v, unsigned i) {
    const std::uint32_t word = v.word[i / 2];
    return i % 2 == 0 ? Conversion::low(word) : Conversion::high(word);
  }
  template <typename F>
  __device__ static Vector map(const Vector& v, F f) {
    Vector out;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const std::uint32_t low = Conversion::bits(f(Conversion::low(v.word[i])));
      const std::uint32_t high = Conversion::bits(f(Conversion::high(v.word[i])));
      out.word[i] = (low & 0xffffU) | high << 16;
    }
    return out;
  }
};

struct BFloat16Conversion {
  __device__ static float low(std::uint32_t word) { return float_of_bits(word << 16); }
  __device__ static float high(std::uint32_t word) { return float_of_bits(word & 0xffff0000U); }
  __device__ static std::uint32_t bits(float value) { return bfloat16_of_float(value); }
};

struct Float16Conversion {
  __device__ static float low(std::uint32_t word) { return float_of_half(word & 0xffffU); }
  __device__ static float high(std::uint32_t word) { return float_of_half(word >> 16); }
  __device__ static std::uint32_t bits(float value) { return half_of_float(value); }
};

using BFloat16Element = ShortElement<BFloat16Conversion>;
using Float16Element = ShortElement<Float16Conversion>;

struct Float64Element {
  using Value = double;
  using Bits = std::uint64_t;
  static constexpr unsigned kPerVector = 2;
  static constexpr unsigned kBytes = 8;
  __device__ static double widen(Bits bits) { return double_of_bits(bits); }
  __device__ static Bits narrow(double value) { return bits_of_double(value); }
  template <typename F>
  __device__ static Vector map(const Vector& v, F f) {
    Vector out;
#pragma unroll
    for (unsigned i = 0; i < 4; i += 2) {
      const Bits in = v.word[i] | static_cast<Bits>(v.word[i + 1]) << 32;
      const Bits bits = narrow(f(widen(in)));
      out.word[i] = static_cast<std::uint32_t>(bits);
      out.word[i + 1] = static_cast<std::uint32_t>(bits >> 32);
    }
    return out;
  }
};

// The i-th element at `data`, whatever its alignment.
template <typename Element>
__device__ inline typename Element::Value load_element(const unsigned char* data, std::uint64_t i) {
  return Element::widen(load_scalar<typename Element::Bits>(data + i * Element::kBytes));
}

__device__ inline double load_as_double(DType dtype, const unsigned char* data, std::uint64_t i) {
  switch (dtype) {
    case DType::kFloat32:
      return load_element<Float32Element>(data, i);
    case DType::kBFloat16:
      return load_element<BFloat16Element>(data, i);
    case DType::kFloat16:
      return load_element<Float16Element>(data, i);
    case DType::kFloat64:
      break;
  }
  return load_element<Float64Element>(data, i);
}

}  // namespace gradwarden::kernels::cuda

#endif  // GRADWARDEN_KERNELS_CUDA_ELEMENT_CUH_
