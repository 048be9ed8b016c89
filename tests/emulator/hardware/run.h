// Runs a kernel on the first real GPU and waits for it.
#ifndef GRADWARDEN_TESTS_EMULATOR_HARDWARE_RUN_H_
#define GRADWARDEN_TESTS_EMULATOR_HARDWARE_RUN_H_

#include <string>

namespace gradwarden::emulator::hardware {

// Number of GPUs; 0 too where there is no driver.
int gpu_count();

// What goes wrong is told by the next Launcher::take_violations().
void run(const void* kernel, unsigned grid, unsigned block, void** arguments);

// What the runtime says is wrong now, or nothing.
std::string trouble();

}  // namespace gradwarden::emulator::hardware

#endif  // GRADWARDEN_TESTS_EMULATOR_HARDWARE_RUN_H_
