// What the calls of NCCL share: their beginning and end, and the group that a thread has open.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_GROUP_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_GROUP_H_

#include <nccl.h>

#include <memory>

#include "tests/emulator/runtime/machine.h"
#include "tests/emulator/runtime/world.h"

namespace gradwarden::emulator {

// Tells an open group that one of its calls failed, so that its end enqueues nothing.
void note_in_group(ncclResult_t result);

// True inside a group: its end waits for the communicator to be complete.
bool wait_in_group(const std::shared_ptr<Communicator>& communicator);

template <typename Body>
ncclResult_t nccl_call(const char* name, Body body) {
  auto result = static_cast<ncclResult_t>(Machine::get().enter(name));
  if (result == ncclSuccess) result = body();
  note_in_group(result);
  return result;
}

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_GROUP_H_
