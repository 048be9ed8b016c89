// What a test sets, injects and reads of the emulated CUDA runtime and NCCL.
//
// The double defines the C symbols of cuda_runtime_api.h and nccl.h (those that a stability guard
// and its examples use; a call that is not there shows as a link error), so that host code compiled
// against the real headers runs with no GPU. How it behaves:
//   - Each stream is a thread that runs its tasks in order, with small random pauses in between, so
//     that a missing ordering between streams, or between a stream and the host, shows. Stream 0 is
//     one more stream per device: the legacy stream's implicit ordering is not emulated, so code
//     must not rely on it.
//   - Kernels are found by address among those registered (kernel_registry.h) and run on the
//   emulated
//     GPU; what it finds wrong becomes the device's sticky error and is kept in take_violations().
//   - Memory handed out holds 0xff bytes, not zeros. Freed memory is reported when kernels use it.
//   - A graph runs its nodes one at a time, in a random order among those that the capture allows;
//     collectives keep the order of their capture.
//   - Ranks are threads of one process, each with a device of its own. A collective waits in its
//     stream for all ranks, then moves the data.
// What CUDA forbids is refused: unsafe calls under capture, calls from a host function, a launch on
// another device's stream. Nothing here measures a GPU.
//
// All functions may be called from any thread, but reset() from one while no other uses the
// runtime.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_CONTROL_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_CONTROL_H_

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/emulator/launcher.h"

namespace gradwarden::emulator {

// Since the last reset. Work is counted when the host enqueues it, and again at each launch of a
// graph that holds it; capturing it counts nothing but the call.
struct RuntimeCounters {
  std::uint64_t kernel_launches = 0;
  std::uint64_t collectives = 0;
  std::uint64_t collective_groups = 0;  // per communicator; a lone call is a group too
  std::uint64_t async_copies = 0;
  std::uint64_t async_copy_bytes = 0;
  std::uint64_t memsets = 0;
  std::uint64_t host_functions = 0;
  std::uint64_t event_records = 0;
  std::uint64_t event_queries = 0;
  std::uint64_t stream_queries = 0;
  std::uint64_t graph_launches = 0;
  std::uint64_t allocations = 0;  // device and pinned
  std::uint64_t frees = 0;
  std::uint64_t stream_synchronisations = 0;
  std::uint64_t event_synchronisations = 0;
  std::uint64_t device_synchronisations = 0;
  // Through kernels/cuda/memory.cuh, that is, of gradients.
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  // Every call by name, also those that failed.
  std::map<std::string, std::uint64_t> calls;
  // The calls among them that wait for a device: synchronisations, frees, copies that are not
  // asynchronous, waiting for a communicator.
  std::map<std::string, std::uint64_t> blocking_calls;

  std::uint64_t synchronisations() const {
    return stream_synchronisations + event_synchronisations + device_synchronisations;
  }
};

RuntimeCounters runtime_counters();
void reset_runtime_counters();

// ---- the machine ------------------------------------------------------------------------------

void set_device_count(int count);          // 16 by default
void set_multiprocessor_count(int count);  // 4 by default
// How long a stream pauses at most before a task; 0: never. 50 by default.
void set_delays(unsigned max_microseconds);
// In which order threads and blocks of kernels run, from each stream's next kernel on.
void set_thread_order(Order order);
// For pauses, orders and graphs. Streams made before keep theirs.
void set_runtime_seed(std::uint64_t seed);

// ---- what went wrong --------------------------------------------------------------------------

// What kernels, copies and collectives did that is a bug, since the last take. Of the streams'
// tasks that have run: synchronise first.
std::vector<std::string> take_runtime_violations();
// cudaSuccess while the device is well.
cudaError_t sticky_error(int device);

// ---- failures on purpose ----------------------------------------------------------------------

// The call of this name (as "cudaMalloc") fails with `error` when it is called for the n-th time
// from now on, 1 being the next. Once.
void fail_call(const std::string& name, std::uint64_t n, cudaError_t error);
void fail_call(const std::string& name, std::uint64_t n, ncclResult_t error);
// The next collective that rank `rank` of any communicator asks for returns `error`. Once.
void fail_collective(int rank, ncclResult_t error);
// The communicators on which `rank` is the caller's own show `error` from now on.
void set_async_error(int rank, ncclResult_t error);
void set_async_error(ncclComm_t communicator, ncclResult_t error);
// The next collective of `rank` never comes to meet the others': all wait until they abort. Once.
void stall_collective(int rank);

// ---- between tests ----------------------------------------------------------------------------

// Releases whoever waits, drops queued work, joins all streams, frees all memory, forgets handles,
// errors, injections and counters, and restores the defaults. Registered kernels stay. Handles from
// before are refused afterwards.
void reset_runtime();

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_CONTROL_H_
