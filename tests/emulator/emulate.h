// Runs a kernel at once on an emulated GPU, for tests that need no CUDA headers and no streams.
#ifndef GRADWARDEN_TESTS_EMULATOR_EMULATE_H_
#define GRADWARDEN_TESTS_EMULATOR_EMULATE_H_

#include <type_traits>

#include "tests/emulator/launcher.h"

namespace gradwarden::emulator {

template <typename... Parameters>
void emulate(void (*kernel)(Parameters...), unsigned grid, unsigned block, Launcher& launcher,
             std::type_identity_t<Parameters>... arguments) {
  launcher.run(grid, block, [&] { kernel(arguments...); });
}

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_EMULATE_H_
