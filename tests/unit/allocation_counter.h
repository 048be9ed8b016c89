// Counts what the calling thread allocates by operator new. Linking the .cc file replaces the
// global operators.
#ifndef GRADWARDEN_TESTS_UNIT_ALLOCATION_COUNTER_H_
#define GRADWARDEN_TESTS_UNIT_ALLOCATION_COUNTER_H_

#include <cstdint>

namespace gradwarden::test {

std::uint64_t allocations();

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_ALLOCATION_COUNTER_H_
