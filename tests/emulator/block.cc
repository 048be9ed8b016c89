#include "tests/emulator/block.h"

#include <algorithm>
#include <cstring>

#include "tests/emulator/launcher_impl.h"

namespace gradwarden::emulator {

std::string place(Site site) {
  std::string file = site.file;
  const std::size_t slash = file.rfind('/');
  if (slash != std::string::npos) file.erase(0, slash + 1);
  return file + ":" + std::to_string(site.line);
}

bool same(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
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
  const std::uint64_t generation = memory->generation();
  if (generation == last_generation && last.holds(at, bytes)) return;
  const MemoryMap::Answer answer = memory->find(at, bytes);
  if (answer.place == MemoryMap::Place::kInside) {
    last = answer.range;
    last_generation = generation;
    return;
  }
  const char* where = answer.place == MemoryMap::Place::kFreed
                          ? " bytes of memory that was freed"
                          : " bytes outside the registered buffers";
  fail(Finding::kGlobalBounds, self() + " " + what + " " + std::to_string(bytes) + where);
}

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

void touch_global(const void* at, std::size_t bytes, Access access) {
  Launcher::Impl& impl = *active;
  if (impl.memory->covers_all()) impl.check_bounds(at, bytes, "uses");
  const std::uint64_t self = std::uint64_t{blockIdx.x} * impl.block + impl.current;
  const auto [it, fresh] = impl.words.try_emplace(at);
  GlobalShadow& shadow = it->second;
  if (fresh) shadow.thread = self;
  shadow.several = shadow.several || shadow.thread != self;
  shadow.plain = shadow.plain || access != Access::kAtomic;
  shadow.written = shadow.written || access != Access::kRead;
  if (!shadow.several || !shadow.plain || !shadow.written) return;
  const std::string word = std::to_string(reinterpret_cast<std::uintptr_t>(at));
  if (impl.seen.insert({Finding::kGlobalRace, word}).second) {
    impl.report(Finding::kGlobalRace,
                impl.self() + " shares a word of global memory with others without atomics");
  }
}

}  // namespace gradwarden::emulator
