// Runs the tests of kernels if there is a GPU; else says so and exits with 77, which ctest counts
// as skipped.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/emulator/hardware/run.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (gradwarden::emulator::hardware::gpu_count() == 0) {
    std::puts("skipped: no GPU");
    return 77;
  }
  return RUN_ALL_TESTS();
}
