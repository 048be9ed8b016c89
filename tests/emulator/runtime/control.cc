#include "tests/emulator/runtime/control.h"

#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/machine.h"
#include "tests/emulator/runtime/stream.h"
#include "tests/emulator/runtime/tables.h"
#include "tests/emulator/runtime/world.h"

namespace gradwarden::emulator {

RuntimeCounters runtime_counters() { return Machine::get().counters(); }
void reset_runtime_counters() { Machine::get().reset_counters(); }

void set_device_count(int count) {
  Machine::get().change([=](Settings& s) { s.device_count = count; });
}
void set_multiprocessor_count(int count) {
  Machine::get().change([=](Settings& s) { s.multiprocessors = count; });
}
void set_delays(unsigned max_microseconds) {
  Machine::get().change([=](Settings& s) { s.max_delay = max_microseconds; });
}
void set_thread_order(Order order) {
  Machine::get().change([=](Settings& s) { s.order = order; });
}
void set_runtime_seed(std::uint64_t seed) {
  Machine::get().change([=](Settings& s) { s.seed = seed; });
}

std::vector<std::string> take_runtime_violations() { return Machine::get().take_violations(); }
cudaError_t sticky_error(int device) { return Machine::get().sticky(device); }

void fail_call(const std::string& name, std::uint64_t n, cudaError_t error) {
  Machine::get().inject(name, n, error);
}
void fail_call(const std::string& name, std::uint64_t n, ncclResult_t error) {
  Machine::get().inject(name, n, error);
}
void fail_collective(int rank, ncclResult_t error) { inject_collective_failure(rank, error); }

void set_async_error(int rank, ncclResult_t error) {
  for (const auto& communicator : communicators().all()) {
    if (communicator->rank == rank) set_error(*communicator, error, "injected by a test");
  }
}
void set_async_error(ncclComm_t communicator, ncclResult_t error) {
  if (const auto c = communicators().find(communicator)) set_error(*c, error, "injected by a test");
}
void stall_collective(int rank) { inject_stall(rank); }

void reset_runtime() {
  Machine& machine = Machine::get();
  machine.set_closing(true);
  release_worlds();
  forget_captures();
  remove_all_streams();
  graph_execs().clear();
  graphs().clear();
  events().clear();
  forget_worlds();
  machine.release_all();
  machine.reset();
  machine.set_closing(false);
}

}  // namespace gradwarden::emulator
