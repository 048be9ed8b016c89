// What a collective does to memory, once every rank is there.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_MOVE_DATA_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_MOVE_DATA_H_

#include <map>

#include "tests/emulator/runtime/world.h"

namespace gradwarden::emulator {

// By rank; all the same collective. Sums are taken in rank order. In place is allowed as in NCCL.
void move_data(const std::map<int, Collective>& ranks);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_MOVE_DATA_H_
