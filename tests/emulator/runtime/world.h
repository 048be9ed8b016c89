// Communicators of the emulated NCCL, and where the ranks of one meet.
//
// One lock for all of them: ranks are few and meetings short. A collective has a number in its
// communicator, given when the host enqueues it; it waits in its stream until every rank has come
// to that number, and the last to come moves the data.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_WORLD_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_WORLD_H_

#include <nccl.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/emulator/runtime/handles.h"

namespace gradwarden::emulator {

enum class CollectiveKind { kAllGather, kAllReduce, kReduceScatter, kBroadcast };

struct Collective {
  CollectiveKind kind = CollectiveKind::kAllGather;
  const void* send = nullptr;
  void* receive = nullptr;
  std::size_t count = 0;  // as the call takes it
  ncclDataType_t type = ncclInt8;
  ncclRedOp_t operation = ncclSum;
  int root = 0;
  bool stalls = false;  // never comes

  // Bytes that it reads and writes on each of `ranks` ranks.
  std::size_t send_bytes(int ranks) const;
  std::size_t receive_bytes(int ranks) const;
  std::string name() const;
};

std::size_t bytes_of(ncclDataType_t type);  // 0: unknown
// Whether the emulation can add this up.
bool can_reduce(ncclDataType_t type, ncclRedOp_t operation);

struct World;

// All members but the constant ones are guarded by the lock of world.cc.
struct Communicator {
  Communicator(std::shared_ptr<World> world, int rank, int device, bool blocking)
      : world(std::move(world)), rank(rank), device(device), blocking(blocking) {}
  const std::shared_ptr<World> world;
  const int rank;
  const int device;
  const bool blocking;
  ncclResult_t error = ncclSuccess;  // asynchronous
  std::string message;
  int polls_in_progress = 0;  // of a call that has not said it is done
  std::uint64_t next_number = 0;
  std::uint64_t unfinished = 0;  // collectives enqueued and not run
  std::uint64_t meeting = 0;     // of them those that wait for others, or move data
  bool aborted = false;
  bool finalizing = false;
};

// Joins the world of `id`. Null, with a reason, if rank or size do not fit those there.
std::shared_ptr<Communicator> join_world(const ncclUniqueId& id, int size, int rank, int device,
                                         bool blocking, ncclResult_t& reason);
// Until all ranks have joined. ncclSystemError if the machine was reset meanwhile.
ncclResult_t wait_until_complete(Communicator& communicator);
int size_of(const Communicator& communicator);

// What a call on the communicator must return at once, or ncclSuccess: it is not complete, has
// failed, or still works on an earlier call.
ncclResult_t readiness(Communicator& communicator);
// What a call that has enqueued something returns: on non-blocking communicators "in progress".
ncclResult_t outcome(Communicator& communicator);
ncclResult_t poll(Communicator& communicator);  // as ncclCommGetAsyncError
void set_error(Communicator& communicator, ncclResult_t error, const std::string& message);
std::string last_message(Communicator& communicator);

// The numbers of `count` collectives, in order: the first of them.
std::uint64_t take_numbers(Communicator& communicator, std::size_t count);
// On a stream: comes to the meeting of this number and returns when the data has moved, or when the
// communicator was aborted. `dead`: does not come.
void meet(const std::shared_ptr<Communicator>& communicator, const Collective& collective,
          std::uint64_t number, bool dead);

// Ends what waits for others; afterwards nothing of this communicator touches memory.
void abort(Communicator& communicator);
// Until what was enqueued has run.
void wait_for_collectives(Communicator& communicator);
void start_finalizing(Communicator& communicator);

Handles<Communicator, ncclComm_t>& communicators();
// Wakes whoever waits, once the machine is closing; forgets all worlds.
void release_worlds();
void forget_worlds();

// What a test injected for a rank's next collective; takes it.
ncclResult_t take_collective_failure(int rank);
bool take_stall(int rank);
void inject_collective_failure(int rank, ncclResult_t error);
void inject_stall(int rank);

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_WORLD_H_
