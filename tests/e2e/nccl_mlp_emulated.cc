// What the example trainer needs beside its own sources to run on emulated GPUs: its kernels, known
// to the emulated runtime; how many GPUs there are; and an end that tells of whatever the emulator
// found wrong.
//
// Linked into nccl_mlp_emulated alone; works before and after main().
#include <cstdio>
#include <cstdlib>
#include <string>

#include "client/examples/nccl_mlp/kernels.cuh"
#include "tests/emulator/runtime/control.h"
#include "tests/emulator/runtime/kernel_registry.h"

namespace nccl_mlp {
namespace {

using gradwarden::emulator::register_kernel;

constexpr int kViolations = 70;  // exit code

// After main(): no other thread uses the runtime, but its streams still wait for work.
void end() {
  const auto found = gradwarden::emulator::take_runtime_violations();
  gradwarden::emulator::reset_runtime();  // joins them
  for (const std::string& violation : found) {
    std::fprintf(stderr, "emulator: %s\n", violation.c_str());
  }
  std::fflush(stdout);
  if (!found.empty()) std::_Exit(kViolations);
}

struct Machine {
  Machine() {
    register_kernel(make_batch_kernel, "make_batch");
    register_kernel(hidden_kernel, "hidden");
    register_kernel(output_error_kernel, "output_error");
    register_kernel(hidden_error_kernel, "hidden_error");
    register_kernel(gradient_kernel, "gradient");
    register_kernel(adam_kernel, "adam");
    register_kernel(advance_kernel, "advance");
    if (const char* gpus = std::getenv("GRADWARDEN_EMULATED_GPUS")) {
      gradwarden::emulator::set_device_count(std::atoi(gpus));
    }
    std::atexit(end);
  }
};

const Machine machine;

}  // namespace
}  // namespace nccl_mlp
