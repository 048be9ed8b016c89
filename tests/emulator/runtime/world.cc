#include "tests/emulator/runtime/world.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <utility>

#include "tests/emulator/runtime/machine.h"
#include "tests/emulator/runtime/move_data.h"

namespace gradwarden::emulator {

struct World {
  struct Meeting {
    std::map<int, Collective> here;  // by rank
    bool over = false;
    int inside = 0;
  };
  int size = 0;
  std::map<int, std::weak_ptr<Communicator>> ranks;
  std::map<std::uint64_t, Meeting> meetings;

  bool complete() const { return static_cast<int>(ranks.size()) == size; }
};

namespace {

struct Global {
  std::mutex mutex;
  std::condition_variable changed;
  std::map<std::string, std::shared_ptr<World>> worlds;
  std::map<int, ncclResult_t> failures;
  std::map<int, int> stalls;
};

Global& global() {
  static Global& only = *new Global;
  return only;
}

std::string describe(int rank, const Collective& c) {
  return "rank " + std::to_string(rank) + " " + c.name();
}

bool same_collective(const Collective& a, const Collective& b) {
  return a.kind == b.kind && a.count == b.count && a.type == b.type && a.operation == b.operation &&
         a.root == b.root;
}

void fail_locked(Communicator& c, ncclResult_t error, const std::string& message) {
  if (c.error == ncclSuccess) {
    c.error = error;
    c.message = message;
  }
}

// False, and an error on every rank, if the ranks did not mean the same collective.
bool agree(World& world, const World::Meeting& meeting) {
  const auto& first = *meeting.here.begin();
  for (const auto& other : meeting.here) {
    if (same_collective(first.second, other.second)) continue;
    const std::string what = "collectives do not match: " + describe(first.first, first.second) +
                             ", " + describe(other.first, other.second);
    bool told = false;
    for (const auto& [rank, weak] : world.ranks) {
      const auto member = weak.lock();
      if (member == nullptr) continue;
      fail_locked(*member, ncclInvalidUsage, what);
      if (!told) Machine::get().violate(member->device, what, cudaSuccess);
      told = true;
    }
    return false;
  }
  return true;
}

// Whether this rank's buffers are memory of the runtime's; else its device has failed.
bool reachable(const Communicator& c, const Collective& collective, int ranks) {
  const MemoryMap& map = *Machine::get().memory_map();
  const bool inside =
      map.find(collective.send, collective.send_bytes(ranks)).place == MemoryMap::Place::kInside &&
      map.find(collective.receive, collective.receive_bytes(ranks)).place ==
          MemoryMap::Place::kInside;
  if (!inside) {
    Machine::get().violate(c.device,
                           describe(c.rank, collective) + " reaches outside of allocated memory",
                           cudaErrorIllegalAddress);
  }
  return inside;
}

void leave(World& world, std::uint64_t number) {
  World::Meeting& meeting = world.meetings[number];
  if (--meeting.inside == 0 && (meeting.over || meeting.here.empty())) world.meetings.erase(number);
}

}  // namespace

std::shared_ptr<Communicator> join_world(const ncclUniqueId& id, int size, int rank, int device,
                                         bool blocking, ncclResult_t& reason) {
  Global& g = global();
  const std::lock_guard lock(g.mutex);
  std::shared_ptr<World>& world = g.worlds[std::string(id.internal, sizeof id.internal)];
  if (world == nullptr) {
    world = std::make_shared<World>();
    world->size = size;
  }
  reason = ncclInvalidArgument;
  if (world->size != size || rank < 0 || rank >= size || world->ranks.count(rank) != 0)
    return nullptr;
  reason = ncclInvalidUsage;  // two ranks on one device
  for (const auto& [other, weak] : world->ranks) {
    const auto member = weak.lock();
    if (member != nullptr && member->device == device) return nullptr;
  }
  auto communicator = std::make_shared<Communicator>(world, rank, device, blocking);
  world->ranks[rank] = communicator;
  g.changed.notify_all();
  reason = ncclSuccess;
  return communicator;
}

ncclResult_t wait_until_complete(Communicator& c) {
  Global& g = global();
  std::unique_lock lock(g.mutex);
  g.changed.wait(lock,
                 [&] { return c.world->complete() || c.aborted || Machine::get().closing(); });
  return c.world->complete() ? ncclSuccess : ncclSystemError;
}

int size_of(const Communicator& c) { return c.world->size; }

ncclResult_t readiness(Communicator& c) {
  const std::lock_guard lock(global().mutex);
  if (c.aborted || c.finalizing) return ncclInvalidArgument;
  if (c.error != ncclSuccess) return c.error;
  if (!c.world->complete() || c.polls_in_progress > 0) return ncclInvalidArgument;
  return ncclSuccess;
}

ncclResult_t outcome(Communicator& c) {
  if (c.blocking) return ncclSuccess;
  const std::lock_guard lock(global().mutex);
  c.polls_in_progress = 1;
  return ncclInProgress;
}

ncclResult_t poll(Communicator& c) {
  const std::lock_guard lock(global().mutex);
  if (c.error != ncclSuccess) return c.error;
  if (Machine::get().sticky(c.device) != cudaSuccess) return ncclUnhandledCudaError;
  if (!c.world->complete() || (c.finalizing && c.unfinished > 0)) return ncclInProgress;
  if (c.polls_in_progress == 0) return ncclSuccess;
  --c.polls_in_progress;
  return ncclInProgress;
}

void set_error(Communicator& c, ncclResult_t error, const std::string& message) {
  const std::lock_guard lock(global().mutex);
  fail_locked(c, error, message);
}

std::string last_message(Communicator& c) {
  const std::lock_guard lock(global().mutex);
  return c.message;
}

std::uint64_t take_numbers(Communicator& c, std::size_t count) {
  const std::lock_guard lock(global().mutex);
  const std::uint64_t first = c.next_number;
  c.next_number += count;
  c.unfinished += count;
  return first;
}

void meet(const std::shared_ptr<Communicator>& communicator, const Collective& collective,
          std::uint64_t number, bool dead) {
  Communicator& c = *communicator;
  World& world = *c.world;
  Global& g = global();
  std::unique_lock lock(g.mutex);
  ++c.meeting;
  const auto given_up = [&] { return c.aborted || Machine::get().closing(); };
  if (!dead && !given_up() && collective.stalls) g.changed.wait(lock, given_up);
  if (!dead && !given_up() && reachable(c, collective, world.size)) {
    World::Meeting& meeting = world.meetings[number];
    ++meeting.inside;
    meeting.here[c.rank] = collective;
    if (static_cast<int>(meeting.here.size()) == world.size) {
      if (agree(world, meeting)) move_data(meeting.here);
      meeting.over = true;
    } else {
      g.changed.wait(lock, [&] { return meeting.over || given_up(); });
      // Whoever has given up does not count as here, and nobody touches its memory any more.
      if (!meeting.over) meeting.here.erase(c.rank);
    }
    leave(world, number);
  }
  --c.meeting;
  --c.unfinished;
  g.changed.notify_all();
}

void abort(Communicator& c) {
  Global& g = global();
  std::unique_lock lock(g.mutex);
  c.aborted = true;
  g.changed.notify_all();
  g.changed.wait(lock, [&] { return c.meeting == 0; });
}

void wait_for_collectives(Communicator& c) {
  Global& g = global();
  std::unique_lock lock(g.mutex);
  g.changed.wait(lock, [&] { return c.unfinished == 0 || Machine::get().closing(); });
}

void start_finalizing(Communicator& c) {
  const std::lock_guard lock(global().mutex);
  c.finalizing = true;
}

Handles<Communicator, ncclComm_t>& communicators() {
  static auto& only = *new Handles<Communicator, ncclComm_t>;
  return only;
}

void release_worlds() {
  Global& g = global();
  const std::lock_guard lock(g.mutex);
  g.changed.notify_all();
}

void forget_worlds() {
  communicators().clear();
  Global& g = global();
  const std::lock_guard lock(g.mutex);
  g.worlds.clear();
  g.failures.clear();
  g.stalls.clear();
}

ncclResult_t take_collective_failure(int rank) {
  Global& g = global();
  const std::lock_guard lock(g.mutex);
  const auto it = g.failures.find(rank);
  if (it == g.failures.end()) return ncclSuccess;
  const ncclResult_t error = it->second;
  g.failures.erase(it);
  return error;
}

bool take_stall(int rank) {
  Global& g = global();
  const std::lock_guard lock(g.mutex);
  int& left = g.stalls[rank];
  if (left == 0) return false;
  --left;
  return true;
}

void inject_collective_failure(int rank, ncclResult_t error) {
  const std::lock_guard lock(global().mutex);
  global().failures[rank] = error;
}

void inject_stall(int rank) {
  const std::lock_guard lock(global().mutex);
  ++global().stalls[rank];
}

}  // namespace gradwarden::emulator
