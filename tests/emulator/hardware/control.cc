// On real hardware there is nothing to control: what the tests set is let be, and the one thing
// that went wrong is the runtime's own error.
#include "tests/emulator/runtime/control.h"

#include "tests/emulator/hardware/run.h"

namespace gradwarden::emulator {

void reset_runtime() {}
void reset_runtime_counters() {}
RuntimeCounters runtime_counters() { return {}; }
void set_delays(unsigned) {}
void set_thread_order(Order) {}
void fail_call(const std::string&, std::uint64_t, cudaError_t) {}

std::vector<std::string> take_runtime_violations() {
  const std::string trouble = hardware::trouble();
  return trouble.empty() ? std::vector<std::string>{} : std::vector<std::string>{trouble};
}

}  // namespace gradwarden::emulator
