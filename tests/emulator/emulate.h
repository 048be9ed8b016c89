// Runs a kernel at once on an emulated GPU, for tests that need no CUDA headers and no streams.
#ifndef GRADWARDEN_TESTS_EMULATOR_EMULATE_H_
#define GRADWARDEN_TESTS_EMULATOR_EMULATE_H_

#include <type_traits>

#include "tests/emulator/launcher.h"
#ifdef GRADWARDEN_HARDWARE
#include "tests/emulator/hardware/run.h"
#endif

namespace gradwarden::emulator {

template <typename... Parameters>
void emulate(void (*kernel)(Parameters...), unsigned grid, unsigned block, Launcher& launcher,
             std::type_identity_t<Parameters>... arguments) {
#ifdef GRADWARDEN_HARDWARE
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  hardware::run(reinterpret_cast<const void*>(kernel), grid, block, pointers);
  static_cast<void>(launcher);
#else
  launcher.run(grid, block, [&] { kernel(arguments...); });
#endif
}

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_EMULATE_H_
