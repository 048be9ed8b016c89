#include "tests/emulator/launcher.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

#include "tests/emulator/block.h"
#include "tests/emulator/fiber.h"

namespace gradwarden::emulator {
namespace {

constexpr unsigned kWarp = 32;

// Unwinds a thread whose launch has ended early.
struct Stop {};

enum class State { kReady, kAtBarrier, kInShuffle, kDone };

std::string place(Site site) {
  std::string file = site.file;
  const std::size_t slash = file.rfind('/');
  if (slash != std::string::npos) file.erase(0, slash + 1);
  return file + ":" + std::to_string(site.line);
}

bool same(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

}  // namespace

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

struct Launcher::Impl {
  Impl(Order order, std::uint64_t seed) : order(order), random(seed) {}

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

  std::map<std::uintptr_t, std::size_t> buffers;
  std::uintptr_t last_buffer = 0;
  std::size_t last_bytes = 0;
};

namespace {
thread_local Launcher::Impl* active = nullptr;
}  // namespace

const char* name_of(Finding finding) {
  switch (finding) {
    case Finding::kDivergentBarrier:
      return "divergent barrier";
    case Finding::kIncompleteShuffle:
      return "incomplete shuffle";
    case Finding::kUninitialisedShared:
      return "uninitialised shared memory";
    case Finding::kSharedRace:
      return "race for shared memory";
    case Finding::kSharedBounds:
      return "shared memory out of bounds";
    case Finding::kGlobalBounds:
      return "global memory out of bounds";
    case Finding::kGlobalRace:
      return "race for global memory";
  }
  return "unknown";
}

Launcher::Launcher(Order order, std::uint64_t seed) : impl_(std::make_unique<Impl>(order, seed)) {}
Launcher::~Launcher() = default;

void Launcher::run(unsigned grid, unsigned block, const std::function<void()>& kernel) {
  if (block == 0 || block % kWarp != 0 || block > 1024 || grid == 0) {
    throw std::invalid_argument("launch: a block has 32, 64, ... 1024 threads, a grid 1 or more");
  }
  if (active != nullptr) throw std::logic_error("launch: a kernel cannot launch another");
  Impl& impl = *impl_;
  ++impl.counters.launches;
  impl.kernel = &kernel;
  impl.error = nullptr;
  impl.stopping = false;
  impl.seen.clear();
  impl.grow(block);
  gridDim = {grid, 1, 1};
  blockDim = {block, 1, 1};
  active = &impl;
  for (const unsigned index : impl.sequence(grid)) {
    if (!impl.stopping) impl.run_block(index);
  }
  active = nullptr;
  if (impl.error) std::rethrow_exception(impl.error);
}

void Launcher::register_buffer(const void* data, std::size_t bytes) {
  impl_->buffers[reinterpret_cast<std::uintptr_t>(data)] = bytes;
}

void Launcher::unregister_buffer(const void* data) {
  impl_->buffers.erase(reinterpret_cast<std::uintptr_t>(data));
  impl_->last_bytes = 0;
}

std::vector<Violation> Launcher::take_violations() { return std::exchange(impl_->violations, {}); }
const Counters& Launcher::counters() const { return impl_->counters; }
void Launcher::reset_counters() { impl_->counters = {}; }

std::vector<unsigned> Launcher::Impl::sequence(unsigned count) {
  std::vector<unsigned> out(count);
  std::iota(out.begin(), out.end(), 0U);
  if (order == Order::kDescending) std::reverse(out.begin(), out.end());
  if (order == Order::kShuffled) std::shuffle(out.begin(), out.end(), random);
  return out;
}

void Launcher::Impl::grow(unsigned size) {
  block = size;
  while (threads.size() < size) {
    const auto index = static_cast<unsigned>(threads.size());
    threads.emplace_back();
    threads.back().fiber = std::make_unique<Fiber>([this, index] { run_thread(index); });
  }
}

// The body of a fiber: one thread of one block.
void Launcher::Impl::run_thread(unsigned index) {
  try {
    (*kernel)();
  } catch (const Stop&) {
  } catch (...) {
    if (!error) error = std::current_exception();
    end_launch();
  }
  threads[index].state = State::kDone;
}

void Launcher::Impl::run_block(unsigned index) {
  blockIdx = {index, 0, 0};
  epoch = 1;
  shared.clear();
  warps.assign(block / kWarp, {});
  for (unsigned i = 0; i < block; ++i) threads[i].state = State::kReady;
  while (pass()) release();
}

// Lets every thread that can go on do so. False when all are done.
bool Launcher::Impl::pass() {
  bool left = false;
  for (const unsigned i : sequence(block)) {
    if (threads[i].state == State::kReady) {
      current = i;
      threadIdx = {i, 0, 0};
      threads[i].fiber->resume();
    }
    left = left || threads[i].state != State::kDone;
  }
  return left;
}

// When nobody can go on: opens the barrier, or says why it never will.
void Launcher::Impl::release() {
  const auto begin = threads.begin();
  const auto end = begin + block;
  const auto in = [](State state) { return [state](const Thread& t) { return t.state == state; }; };
  if (std::any_of(begin, end, in(State::kReady))) return;
  const auto stuck = std::find_if(begin, end, in(State::kInShuffle));
  if (stuck != end) {
    const auto lane = static_cast<unsigned>(stuck - begin);
    report(Finding::kIncompleteShuffle, place(stuck->site) + ": thread " + std::to_string(lane) +
                                            " waits for " +
                                            std::to_string(kWarp - warps[lane / kWarp].arrived) +
                                            " lanes of its warp that its full mask names");
    end_launch();
    return;
  }
  if (std::any_of(begin, end, in(State::kAtBarrier))) judge_barrier();
}

void Launcher::Impl::judge_barrier() {
  const Thread* first = nullptr;
  unsigned waiting = 0;
  for (unsigned i = 0; i < block; ++i) {
    const Thread& t = threads[i];
    if (t.state != State::kAtBarrier) continue;
    ++waiting;
    if (first == nullptr) first = &t;
    if (!same(t.site, first->site)) {
      report(Finding::kDivergentBarrier,
             "threads of one block wait at " + place(first->site) + " and at " + place(t.site));
      return end_launch();
    }
  }
  if (waiting != block) {
    report(Finding::kDivergentBarrier, place(first->site) + ": " + std::to_string(waiting) +
                                           " threads wait, " + std::to_string(block - waiting) +
                                           " have left the kernel");
    return end_launch();
  }
  ++epoch;
  for (unsigned i = 0; i < block; ++i) threads[i].state = State::kReady;
}

void Launcher::Impl::wait(State state, Site site) {
  Thread& t = threads[current];
  t.state = state;
  t.site = site;
  t.fiber->suspend();
  if (stopping) throw Stop{};
}

void Launcher::Impl::report(Finding finding, std::string what) {
  violations.push_back({finding, std::move(what)});
}

void Launcher::Impl::end_launch() {
  stopping = true;
  for (unsigned i = 0; i < block; ++i) {
    if (threads[i].state != State::kDone) threads[i].state = State::kReady;
  }
}

void Launcher::Impl::fail(Finding finding, std::string what) {
  report(finding, std::move(what));
  end_launch();
  throw Stop{};
}

std::string Launcher::Impl::self() const {
  return "thread " + std::to_string(current) + " of block " + std::to_string(blockIdx.x);
}

void Launcher::Impl::check_bounds(const void* at, std::size_t bytes, const char* what) {
  const auto address = reinterpret_cast<std::uintptr_t>(at);
  const auto inside = [&](std::uintptr_t begin, std::size_t size) {
    return address >= begin && bytes <= size && address - begin <= size - bytes;
  };
  if (last_bytes != 0 && inside(last_buffer, last_bytes)) return;
  auto next = buffers.upper_bound(address);
  if (next != buffers.begin()) {
    --next;
    if (inside(next->first, next->second)) {
      last_buffer = next->first;
      last_bytes = next->second;
      return;
    }
  }
  fail(Finding::kGlobalBounds,
       self() + " " + what + " " + std::to_string(bytes) + " bytes outside the registered buffers");
}

// ---- what threads call -------------------------------------------------------------------------

bool in_kernel() { return active != nullptr; }

void wait_at_barrier(Site site) { active->wait(State::kAtBarrier, site); }

std::uint64_t exchange(std::uint32_t mask, std::uint64_t bits, unsigned source,
                       const char* operation, Site site) {
  Launcher::Impl& impl = *active;
  const unsigned self = impl.current;
  Warp& warp = impl.warps[self / kWarp];
  if (mask != 0xffffffffU) {
    impl.fail(Finding::kIncompleteShuffle, place(site) + ": the mask is not full");
  }
  if (warp.arrived == 0) {
    warp.operation = operation;
    warp.site = site;
  } else if (!same(warp.site, site) || std::strcmp(warp.operation, operation) != 0) {
    impl.fail(Finding::kIncompleteShuffle,
              "lanes of one warp are in " + std::string(warp.operation) + " at " +
                  place(warp.site) + " and in " + operation + " at " + place(site));
  }
  const unsigned turn = warp.turn;
  warp.slots[turn][self % kWarp] = bits;
  if (++warp.arrived == kWarp) {
    warp.arrived = 0;
    warp.turn ^= 1U;
    const unsigned first = self / kWarp * kWarp;
    for (unsigned i = first; i < first + kWarp; ++i) impl.threads[i].state = State::kReady;
  } else {
    impl.wait(State::kInShuffle, site);
  }
  return warp.slots[turn][source];
}

SharedStorage& shared_storage(Site site, const void* type, const char* name,
                              std::size_t element_bytes, std::size_t count) {
  const auto [it, fresh] =
      active->shared.try_emplace({site.file, site.line, type}, SharedStorage{});
  SharedStorage& storage = it->second;
  if (fresh) {
    const std::size_t words = (element_bytes * count + 7) / 8;
    storage = {site, name, element_bytes, count, std::vector<std::uint64_t>(words), {}};
    std::fill(storage.words.begin(), storage.words.end(), 0xcdcdcdcdcdcdcdcdU);
    storage.shadow.resize(count);
  }
  return storage;
}

void touch_shared(SharedStorage& storage, std::size_t index, Access access) {
  Launcher::Impl& impl = *active;
  const auto self = static_cast<int>(impl.current);
  const auto where = [&] {
    return place(storage.site) + ": " + impl.self() + ", " + storage.name + "[" +
           std::to_string(index) + "]";
  };
  const auto once = [&](Finding finding, const std::string& what) {
    if (impl.seen.insert({finding, place(storage.site)}).second) impl.report(finding, what);
  };
  if (index >= storage.count) {
    impl.fail(Finding::kSharedBounds, where() + " of " + std::to_string(storage.count));
  }
  Shadow& shadow = storage.shadow[index];
  const bool fresh_write = shadow.write_epoch == impl.epoch && shadow.writer != Shadow::kNobody;
  const bool fresh_read = shadow.read_epoch == impl.epoch && shadow.reader != Shadow::kNobody;
  const bool both_atomic = access == Access::kAtomic && shadow.by_atomic;
  if (access != Access::kWrite && !shadow.written) {
    once(Finding::kUninitialisedShared, where() + " is read before anything wrote it");
  }
  if (fresh_write && shadow.writer != self && !both_atomic) {
    once(Finding::kSharedRace, where() + " was written by another thread since the last barrier");
  }
  if (access != Access::kRead && fresh_read && shadow.reader != self) {
    once(Finding::kSharedRace, where() + " is written, another thread read it since the barrier");
  }
  if (access == Access::kRead) {
    shadow.reader = fresh_read && shadow.reader != self ? Shadow::kSeveral : self;
    shadow.read_epoch = impl.epoch;
    return;
  }
  shadow.by_atomic = access == Access::kAtomic;
  shadow.writer = both_atomic && fresh_write && shadow.writer != self ? Shadow::kSeveral : self;
  shadow.write_epoch = impl.epoch;
  shadow.written = true;
}

void global_read(const void* at, std::size_t bytes) {
  active->check_bounds(at, bytes, "reads");
  active->counters.bytes_read += bytes;
}

void global_write(const void* at, std::size_t bytes) {
  active->check_bounds(at, bytes, "writes");
  active->counters.bytes_written += bytes;
}

void touch_global(GlobalShadow& shadow, Access access) {
  if (active == nullptr) return;
  Launcher::Impl& impl = *active;
  const std::uint64_t self = std::uint64_t{blockIdx.x} * impl.block + impl.current;
  if (shadow.launch != impl.counters.launches) {
    shadow = {};
    shadow.launch = impl.counters.launches;
    shadow.thread = self;
  }
  shadow.several = shadow.several || shadow.thread != self;
  shadow.plain = shadow.plain || access != Access::kAtomic;
  shadow.written = shadow.written || access != Access::kRead;
  if (!shadow.several || !shadow.plain || !shadow.written) return;
  if (impl.seen
          .insert({Finding::kGlobalRace, std::to_string(reinterpret_cast<std::uintptr_t>(&shadow))})
          .second) {
    impl.report(Finding::kGlobalRace,
                impl.self() + " shares a word of global memory with others without atomics");
  }
}

}  // namespace gradwarden::emulator
