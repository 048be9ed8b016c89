// The inside of a Launcher: the fibers of a block, and who waits for what. For launcher.cc, which
// schedules them, and block.cc, which is what they call.
#ifndef GRADWARDEN_TESTS_EMULATOR_LAUNCHER_IMPL_H_
#define GRADWARDEN_TESTS_EMULATOR_LAUNCHER_IMPL_H_

#include <exception>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/emulator/block.h"
#include "tests/emulator/fiber.h"
#include "tests/emulator/launcher.h"
#include "tests/emulator/memory_map.h"

namespace gradwarden::emulator {

inline constexpr unsigned kWarp = 32;

// Unwinds a thread whose launch has ended early.
struct Stop {};

enum class State { kReady, kAtBarrier, kInShuffle, kDone };

struct Thread {
  State state = State::kDone;
  Site site{"", 0};  // where it waits
  std::unique_ptr<Fiber> fiber;
};

// Two sets of slots in turn: a lane can be one shuffle ahead of a neighbour that has yet to read,
// never two.
struct Warp {
  std::uint64_t slots[2][kWarp] = {};
  unsigned turn = 0;
  unsigned arrived = 0;
  const char* operation = "";
  Site site{"", 0};
};

// Who touched one word of global memory in a launch.
struct GlobalShadow {
  std::uint64_t thread = 0;  // the first
  bool several = false;
  bool plain = false;
  bool written = false;
};

struct Launcher::Impl {
  Impl(Order order, std::uint64_t seed, std::shared_ptr<MemoryMap> memory)
      : order(order), random(seed), memory(std::move(memory)) {}

  std::vector<unsigned> sequence(unsigned count);
  void grow(unsigned block);
  void run_block(unsigned index);
  void run_thread(unsigned index);
  bool pass();
  void release();
  void judge_barrier();
  void wait(State state, Site site);
  void report(Finding finding, std::string what);
  [[noreturn]] void fail(Finding finding, std::string what);
  void end_launch();
  void check_bounds(const void* at, std::size_t bytes, const char* what);
  std::string self() const;

  Order order;
  std::mt19937_64 random;
  Counters counters;
  std::vector<Violation> violations;
  std::set<std::pair<Finding, std::string>> seen;  // in this launch, by place

  // Of the launch.
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
  bool stopping = false;
  // Of the block.
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  unsigned block = 0;
  unsigned current = 0;
  unsigned epoch = 0;  // barriers passed, from 1
  std::map<std::tuple<std::string_view, unsigned, const void*>, SharedStorage> shared;

  std::map<const void*, GlobalShadow> words;  // touched in this launch

  std::shared_ptr<MemoryMap> memory;
  MemoryMap::Range last;  // where the last access was: the next is most often there too
  std::uint64_t last_generation = 0;
};

// The launcher whose kernel runs on this thread.
inline thread_local Launcher::Impl* active = nullptr;

std::string place(Site site);
bool same(Site a, Site b);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_LAUNCHER_IMPL_H_
