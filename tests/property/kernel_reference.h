// An independent reference for the kernel tests: dtypes decoded and encoded by arithmetic on their
// definition, sums in long double, one element at a time; and what random inputs look like.
#ifndef GRADWARDEN_TESTS_PROPERTY_KERNEL_REFERENCE_H_
#define GRADWARDEN_TESTS_PROPERTY_KERNEL_REFERENCE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "kernels/numerics/statistics.h"

namespace gradwarden::kernels::reference {

struct Format {
  DType dtype;
  const char* name;
  int bytes;
  int exponent_bits;
  int mantissa_bits;
};

inline constexpr Format kFormats[] = {
    {DType::kFloat64, "fp64", 8, 11, 52},
    {DType::kFloat32, "fp32", 4, 8, 23},
    {DType::kBFloat16, "bf16", 2, 8, 7},
    {DType::kFloat16, "fp16", 2, 5, 10},
};

std::uint64_t infinity_bits(const Format& format);
double decode(const Format& format, std::uint64_t bits);
// To nearest even; infinity beyond the largest value; any NaN for NaN.
std::uint64_t encode(const Format& format, double value);

// `count` elements that start `offset` bytes into an allocation of their own.
class Buffer {
 public:
  Buffer(const Format& format, std::size_t count, std::size_t offset = 0)
      : format_(&format), count_(count), offset_(offset), bytes_(offset + count * format.bytes) {}

  const Format& format() const { return *format_; }
  std::size_t count() const { return count_; }
  std::byte* data() { return bytes_.data() + offset_; }
  const std::byte* data() const { return bytes_.data() + offset_; }
  std::uint64_t bits(std::size_t i) const {
    std::uint64_t value = 0;
    std::memcpy(&value, data() + i * format_->bytes, format_->bytes);
    return value;
  }
  void set_bits(std::size_t i, std::uint64_t value) {
    std::memcpy(data() + i * format_->bytes, &value, format_->bytes);
  }
  double value(std::size_t i) const { return decode(*format_, bits(i)); }
  // The same elements at another alignment.
  Buffer moved(std::size_t offset) const {
    Buffer copy(*format_, count_, offset);
    if (count_ != 0) std::memcpy(copy.data(), data(), count_ * format_->bytes);
    return copy;
  }

 private:
  const Format* format_;
  std::size_t count_;
  std::size_t offset_;
  std::vector<std::byte> bytes_;
};

enum class Content {
  kGradient,    // normal numbers of one scale
  kWide,        // every finite bit pattern, equally likely; fp64 kept where powers fit float64
  kSubnormal,   // subnormals only
  kNearMax,     // the largest magnitudes; fp64 kept where powers fit float64
  kMostlyZero,  // zeros of either sign, few others
  kZero,
  kBroken,    // gradients with NaN (any payload, any sign) and Inf here and there
  kAllBroken  // nothing but NaN and Inf
};
inline constexpr Content kFiniteContents[] = {Content::kGradient,   Content::kWide,
                                              Content::kSubnormal,  Content::kNearMax,
                                              Content::kMostlyZero, Content::kZero};
std::string name_of(Content content);
void fill(Buffer& buffer, Content content, std::mt19937_64& random);

// As the kernels define it, by the shortest code that can be read.
struct Expected {
  long double power_sum = 0;
  double max_abs = 0;
  std::uint64_t nan_count = 0;
  std::uint64_t inf_count = 0;
  std::uint64_t zero_count = 0;
  std::uint64_t first_non_finite = kNoIndex;
};
Expected expected_statistics(const Buffer& buffer, double p);

// What the SIMD targets of this build and processor are called, with the bit Highway gives them.
struct Target {
  std::int64_t bit;
  const char* name;
};
std::vector<Target> simd_targets();

// Runs only one SIMD target until destroyed.
class OnlyTarget {
 public:
  explicit OnlyTarget(std::int64_t bit);
  ~OnlyTarget();
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;
};

// The seed of this run: GRADWARDEN_TEST_SEED if set, else always the same.
std::uint64_t seed();

}  // namespace gradwarden::kernels::reference

#endif  // GRADWARDEN_TESTS_PROPERTY_KERNEL_REFERENCE_H_
