#include "tests/property/kernel_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/simd_targets.h"
// After the choice of targets, so that the list is that of the kernels.
#include "hwy/highway.h"

namespace gradwarden::kernels::reference {
namespace {

int bias(const Format& format) { return (1 << (format.exponent_bits - 1)) - 1; }
std::uint64_t mantissa_mask(const Format& format) {
  return (std::uint64_t{1} << format.mantissa_bits) - 1;
}
std::uint64_t sign_bit(const Format& format) { return std::uint64_t{1} << (8 * format.bytes - 1); }

// A finite pattern whose magnitude lies in [low, high) of the integer order of magnitudes.
std::uint64_t between(const Format& format, std::uint64_t low, std::uint64_t high,
                      std::mt19937_64& random) {
  std::uniform_int_distribution<std::uint64_t> magnitude(low, high - 1);
  return magnitude(random) | (random() % 2 == 0 ? sign_bit(format) : 0);
}

std::uint64_t broken_bits(const Format& format, std::mt19937_64& random) {
  const std::uint64_t sign = random() % 2 == 0 ? sign_bit(format) : 0;
  if (random() % 3 == 0) return sign | infinity_bits(format);
  return sign | (infinity_bits(format) + 1 + random() % mantissa_mask(format));
}

std::uint64_t gradient_bits(const Format& format, std::mt19937_64& random) {
  std::normal_distribution<double> gradient(0.0, 1e-3);
  return encode(format, gradient(random));
}

}  // namespace

std::uint64_t infinity_bits(const Format& format) {
  return ((std::uint64_t{1} << format.exponent_bits) - 1) << format.mantissa_bits;
}

double decode(const Format& format, std::uint64_t bits) {
  const double sign = (bits & sign_bit(format)) != 0 ? -1.0 : 1.0;
  const std::uint64_t mantissa = bits & mantissa_mask(format);
  const std::uint64_t magnitude = bits & ~sign_bit(format);
  if (magnitude > infinity_bits(format)) return std::numeric_limits<double>::quiet_NaN();
  if (magnitude == infinity_bits(format)) return sign * std::numeric_limits<double>::infinity();
  const int exponent = static_cast<int>(magnitude >> format.mantissa_bits);
  if (exponent == 0) {
    return sign *
           std::ldexp(static_cast<double>(mantissa), 1 - bias(format) - format.mantissa_bits);
  }
  const double significand = static_cast<double>(mantissa + mantissa_mask(format) + 1);
  return sign * std::ldexp(significand, exponent - bias(format) - format.mantissa_bits);
}

std::uint64_t encode(const Format& format, double value) {
  const std::uint64_t sign = std::signbit(value) ? sign_bit(format) : 0;
  if (std::isnan(value)) return sign | (infinity_bits(format) + mantissa_mask(format));
  if (std::isinf(value)) return sign | infinity_bits(format);
  if (value == 0) return sign;
  const int lowest = 1 - bias(format);
  const int exponent = std::max(std::ilogb(value), lowest);
  // In units of the last place of this binade; nearbyint rounds to even.
  const double units =
      std::nearbyint(std::ldexp(std::fabs(value), format.mantissa_bits - exponent));
  // Adding lets a carry move into the exponent, up to infinity, as the format's order wants it.
  const std::uint64_t binade = static_cast<std::uint64_t>(exponent - lowest)
                               << format.mantissa_bits;
  return sign | std::min(binade + static_cast<std::uint64_t>(units), infinity_bits(format));
}

std::string name_of(Content content) {
  switch (content) {
    case Content::kGradient:
      return "gradient";
    case Content::kWide:
      return "wide";
    case Content::kSubnormal:
      return "subnormal";
    case Content::kNearMax:
      return "near max";
    case Content::kMostlyZero:
      return "mostly zero";
    case Content::kZero:
      return "zero";
    case Content::kBroken:
      return "broken";
    case Content::kAllBroken:
      break;
  }
  return "all broken";
}

void fill(Buffer& buffer, Content content, std::mt19937_64& random) {
  const Format& format = buffer.format();
  const bool wide_format = format.dtype == DType::kFloat64;
  // For fp64, magnitudes whose cubes and square roots stay normal float64.
  const std::uint64_t low = wide_format ? encode(format, 1e-100) : 0;
  const std::uint64_t high = wide_format ? encode(format, 1e95) : infinity_bits(format);
  const std::uint64_t one_unit = std::uint64_t{1} << format.mantissa_bits;
  for (std::size_t i = 0; i < buffer.count(); ++i) {
    std::uint64_t bits = 0;
    switch (content) {
      case Content::kGradient:
        bits = gradient_bits(format, random);
        break;
      case Content::kWide:
        bits = between(format, low, high, random);
        break;
      case Content::kSubnormal:
        bits = between(format, 1, one_unit, random);
        break;
      case Content::kNearMax:
        bits = between(format, high - one_unit, high, random);
        break;
      case Content::kMostlyZero:
        bits = random() % 20 == 0 ? gradient_bits(format, random) : between(format, 0, 1, random);
        break;
      case Content::kZero:
        bits = between(format, 0, 1, random);
        break;
      case Content::kBroken:
        bits = random() % 1000 == 0 ? broken_bits(format, random) : gradient_bits(format, random);
        break;
      case Content::kAllBroken:
        bits = broken_bits(format, random);
        break;
    }
    buffer.set_bits(i, bits);
  }
}

Expected expected_statistics(const Buffer& buffer, double p) {
  Expected result;
  for (std::size_t i = 0; i < buffer.count(); ++i) {
    const double magnitude = std::fabs(buffer.value(i));
    if (!std::isfinite(magnitude)) {
      ++(std::isnan(magnitude) ? result.nan_count : result.inf_count);
      if (result.first_non_finite == kNoIndex) result.first_non_finite = i;
      continue;
    }
    result.zero_count += magnitude == 0;
    result.max_abs = std::max(result.max_abs, magnitude);
    const auto exact = static_cast<long double>(magnitude);
    if (p == 2.0) {
      result.power_sum += exact * exact;
    } else if (p == 1.0) {
      result.power_sum += exact;
    } else if (!std::isinf(p) && magnitude != 0) {
      result.power_sum += std::pow(exact, static_cast<long double>(p));
    }
  }
  return result;
}

std::vector<Target> simd_targets() {
  std::vector<Target> targets;
  for (const std::int64_t bit : hwy::SupportedAndGeneratedTargets()) {
    targets.push_back({bit, hwy::TargetName(bit)});
  }
  return targets;
}

OnlyTarget::OnlyTarget(std::int64_t bit) { hwy::SetSupportedTargetsForTest(bit); }
OnlyTarget::~OnlyTarget() { hwy::SetSupportedTargetsForTest(0); }

std::uint64_t seed() {
  const char* wanted = std::getenv("GRADWARDEN_TEST_SEED");
  return wanted == nullptr ? 20240229 : std::strtoull(wanted, nullptr, 10);
}

}  // namespace gradwarden::kernels::reference
