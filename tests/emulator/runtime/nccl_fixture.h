// For tests of communicators: a unique id, and ranks that join it.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_NCCL_FIXTURE_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_NCCL_FIXTURE_H_

#include "tests/emulator/runtime/runtime_fixture.h"

namespace gradwarden::emulator {

class NcclTest : public RuntimeTest {
 protected:
  void SetUp() override {
    RuntimeTest::SetUp();
    EXPECT_NCCL(ncclGetUniqueId(&id_));
  }
  ncclComm_t join(int rank, int ranks) const {
    ncclComm_t communicator = nullptr;
    EXPECT_NCCL(ncclCommInitRank(&communicator, ranks, id_, rank));
    return communicator;
  }
  ncclUniqueId id_;
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_NCCL_FIXTURE_H_
