// A digest of a tensor's bits that replicas on different ranks can compare.
//
// The sum, modulo 2^64, of one mixed word per element: whole numbers add up to the same in any
// order, so that neither the cut of a tensor into shards nor the grid changes it. Every bit of
// every element, and its place, counts: another sign of zero, another NaN, two elements exchanged.
// Two different contents collide with a probability of about 2^-64.
#ifndef GRADWARDEN_KERNELS_NUMERICS_DIGEST_H_
#define GRADWARDEN_KERNELS_NUMERICS_DIGEST_H_

#include <cstdint>

#include "kernels/numerics/portable.h"

namespace gradwarden::kernels {

// Of the element at flat index `index` of the whole tensor, with these bits, zero-extended. The
// finalizer is that of SplitMix64 (Steele, Lea, Flood 2014).
GRADWARDEN_HD inline std::uint64_t element_digest(std::uint64_t index, std::uint64_t bits) {
  std::uint64_t x = (index + 1) * 0x9e3779b97f4a7c15ULL;
  x ^= bits + 0xd1b54a32d192ed03ULL + (bits << 29);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// What an audit compares: what one rank holds of the elements that it shares with certain others;
// zeros where it holds nothing.
struct RegionSums {
  std::uint64_t digest = 0;
  double power_sum = 0;  // for p = infinity the largest magnitude
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_NUMERICS_DIGEST_H_
