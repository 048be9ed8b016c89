#include "tests/emulator/launcher.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "tests/emulator/launcher_impl.h"

namespace gradwarden::emulator {

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

Launcher::Launcher(Order order, std::uint64_t seed)
    : Launcher(order, seed, std::make_shared<MemoryMap>()) {}
Launcher::Launcher(Order order, std::uint64_t seed, std::shared_ptr<MemoryMap> memory)
    : impl_(std::make_unique<Impl>(order, seed, std::move(memory))) {}
Launcher::~Launcher() = default;

void Launcher::set_order(Order order) { impl_->order = order; }

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
  impl.words.clear();
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
  impl_->memory->add(data, bytes, MemoryMap::Kind::kDevice, 0);
}

void Launcher::unregister_buffer(const void* data) { impl_->memory->forget(data); }

std::vector<Violation> Launcher::take_violations() { return std::exchange(impl_->violations, {}); }
bool Launcher::counts() { return true; }

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
    if (!stopping) (*kernel)();
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

}  // namespace gradwarden::emulator
