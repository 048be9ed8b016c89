// An emulated GPU for kernels: runs the very sources of kernels/cuda, compiled for the host, with
// one fiber per thread of a block, and reports what would be a bug on a real one.
//
// Threads of a block run one at a time and change at barriers and warp shuffles, in ascending,
// descending or shuffled order; blocks run one after the other, in the same choice of orders. So
// whatever depends on an order that CUDA does not promise shows as a difference or as a Violation:
//   - barriers that not all threads of a block reach, or that they reach at different places;
//   - shuffles whose mask names lanes that do not take part;
//   - shared memory read before it is written, or raced for between two barriers, or left;
//   - gradient memory read or written outside the registered buffers;
//   - words of global memory (global_word()) that threads share without atomics.
// It cannot see a missing memory fence, and tables that kernels read through plain pointers are
// guarded by AddressSanitizer alone.
//
// One Launcher is used by one thread at a time; several may run on different threads. It owns its
// fibers; buffers and arguments stay their owner's. Nothing here measures a GPU.
#ifndef GRADWARDEN_TESTS_EMULATOR_LAUNCHER_H_
#define GRADWARDEN_TESTS_EMULATOR_LAUNCHER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace gradwarden::emulator {

enum class Order { kAscending, kDescending, kShuffled };

enum class Finding {
  kDivergentBarrier,
  kIncompleteShuffle,
  kUninitialisedShared,
  kSharedRace,
  kSharedBounds,
  kGlobalBounds,
  kGlobalRace,
};

const char* name_of(Finding finding);

struct Violation {
  Finding finding;
  std::string what;  // one line: where, and which threads
};

struct Counters {
  std::uint64_t launches = 0;
  std::uint64_t bytes_read = 0;     // of registered memory
  std::uint64_t bytes_written = 0;  // of registered memory
};

class MemoryMap;

class Launcher {
 public:
  explicit Launcher(Order order = Order::kAscending, std::uint64_t seed = 1);
  // Over memory that several launchers share.
  Launcher(Order order, std::uint64_t seed, std::shared_ptr<MemoryMap> memory);
  ~Launcher();
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;

  // Runs `kernel` in every thread of the grid and returns when all are done, or when a violation
  // made going on pointless. `block` is a multiple of 32 (else std::invalid_argument). An exception
  // thrown by the kernel is rethrown.
  void run(unsigned grid, unsigned block, const std::function<void()>& kernel);

  void set_order(Order order);  // from the next launch on

  // Memory that kernels may reach through kernels/cuda/memory.cuh.
  void register_buffer(const void* data, std::size_t bytes);
  void unregister_buffer(const void* data);

  // What was found since the start or the last take; each place once per launch.
  std::vector<Violation> take_violations();
  const Counters& counters() const;
  // False on real hardware (tests/emulator/hardware), which counts nothing.
  static bool counts();
  void reset_counters();

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_LAUNCHER_H_
