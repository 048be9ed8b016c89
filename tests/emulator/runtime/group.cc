// Collectives and groups of them.
#include "tests/emulator/runtime/group.h"

#include <utility>
#include <vector>

#include "tests/emulator/runtime/calls.h"
#include "tests/emulator/runtime/capture.h"
#include "tests/emulator/runtime/stream.h"

namespace gradwarden::emulator {
namespace {

// The collectives of one communicator on one stream, which start and end as one.
struct Batch {
  std::shared_ptr<Communicator> communicator;
  std::shared_ptr<Stream> stream;
  std::vector<Collective> collectives;
};

struct Group {
  std::uint64_t epoch = 0;
  int depth = 0;
  ncclResult_t error = ncclSuccess;
  std::vector<Batch> batches;
  std::vector<std::shared_ptr<Communicator>> joining;
};

// This thread's. What was left open before the machine was reset is forgotten.
Group& group() {
  thread_local Group open;
  const std::uint64_t epoch = Machine::get().epoch();
  if (open.epoch != epoch) {
    open = {};
    open.epoch = epoch;
  }
  return open;
}

void add(Group& group, std::shared_ptr<Communicator> communicator, std::shared_ptr<Stream> stream,
         const Collective& collective) {
  for (Batch& batch : group.batches) {
    if (batch.communicator == communicator && batch.stream == stream) {
      batch.collectives.push_back(collective);
      return;
    }
  }
  group.batches.push_back({std::move(communicator), std::move(stream), {collective}});
}

// Each rank of a batch comes to all its meetings in order; numbers are taken when it is enqueued,
// so that replays of a graph and other calls keep the order of the host.
Work batch_work(std::shared_ptr<Communicator> communicator, std::vector<Collective> collectives) {
  const auto bind = [communicator, collectives]() -> Task {
    Machine::get().count([&](RuntimeCounters& c) {
      c.collectives += collectives.size();
      ++c.collective_groups;
    });
    std::vector<Collective> now = collectives;
    if (take_stall(communicator->rank)) now.front().stalls = true;
    const std::uint64_t first = take_numbers(*communicator, now.size());
    return [communicator, now, first](bool dead) {
      for (std::size_t i = 0; i < now.size(); ++i) meet(communicator, now[i], first + i, dead);
    };
  };
  return {bind, true};
}

ncclResult_t start(const Batch& batch) {
  const cudaError_t error =
      submit(*batch.stream, batch_work(batch.communicator, batch.collectives));
  return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t end_group(Group& group) {
  const std::vector<Batch> batches = std::exchange(group.batches, {});
  const auto joining = std::exchange(group.joining, {});
  const ncclResult_t error = std::exchange(group.error, ncclSuccess);
  if (error != ncclSuccess) return error;
  for (const auto& communicator : joining) {
    Machine::get().count_blocking("ncclGroupEnd");
    if (const ncclResult_t e = wait_until_complete(*communicator)) return e;
  }
  ncclResult_t result = ncclSuccess;
  for (const Batch& batch : batches) {
    if (const ncclResult_t e = start(batch)) return e;
  }
  for (const Batch& batch : batches) {
    if (outcome(*batch.communicator) == ncclInProgress) result = ncclInProgress;
  }
  return result;
}

ncclResult_t check(const Communicator& c, const Stream& stream, const Collective& collective) {
  const int size = size_of(c);
  if (bytes_of(collective.type) == 0 || collective.root < 0 || collective.root >= size)
    return ncclInvalidArgument;
  const bool reduces = collective.kind == CollectiveKind::kAllReduce ||
                       collective.kind == CollectiveKind::kReduceScatter;
  if (reduces && !can_reduce(collective.type, collective.operation)) return ncclInvalidArgument;
  const bool reads = collective.kind != CollectiveKind::kBroadcast || collective.root == c.rank;
  if ((reads && collective.send == nullptr) || collective.receive == nullptr)
    return ncclInvalidArgument;
  if (stream.device != c.device) return ncclInvalidArgument;
  return ncclSuccess;
}

ncclResult_t enqueue(const char* call, Collective collective, ncclComm_t handle,
                     cudaStream_t stream_handle) {
  return nccl_call(call, [&] {
    const auto communicator = communicators().find(handle);
    if (communicator == nullptr) return ncclInvalidArgument;
    const auto stream = find_stream(stream_handle, communicator->device);
    if (stream == nullptr) return ncclInvalidArgument;
    if (const ncclResult_t error = readiness(*communicator)) return error;
    if (const ncclResult_t error = take_collective_failure(communicator->rank)) return error;
    if (Machine::get().sticky(communicator->device) != cudaSuccess) return ncclUnhandledCudaError;
    if (collective.count == 0) return ncclSuccess;
    if (const ncclResult_t error = check(*communicator, *stream, collective)) return error;
    // Only the root's is read.
    if (collective.kind == CollectiveKind::kBroadcast && collective.root != communicator->rank)
      collective.send = collective.receive;
    Group& open = group();
    add(open, communicator, stream, collective);
    return open.depth > 0 ? ncclSuccess : end_group(open);
  });
}

}  // namespace

void note_in_group(ncclResult_t result) {
  Group& open = group();
  if (open.depth > 0 && result != ncclSuccess && result != ncclInProgress &&
      open.error == ncclSuccess)
    open.error = result;
}

bool wait_in_group(const std::shared_ptr<Communicator>& communicator) {
  Group& open = group();
  if (open.depth == 0) return false;
  open.joining.push_back(communicator);
  return true;
}

}  // namespace gradwarden::emulator

using namespace gradwarden::emulator;  // NOLINT: the C symbols below are global

extern "C" {

ncclResult_t ncclGroupStart() {
  return nccl_call("ncclGroupStart", [] {
    ++group().depth;
    return ncclSuccess;
  });
}

ncclResult_t ncclGroupEnd() {
  Group& open = group();
  return nccl_call("ncclGroupEnd", [&] {
    if (open.depth == 0) return ncclInvalidUsage;
    return --open.depth > 0 ? ncclSuccess : end_group(open);
  });
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t communicator, cudaStream_t stream) {
  const Collective c{CollectiveKind::kAllGather, send, receive, count, type, ncclSum, 0, false};
  return enqueue("ncclAllGather", c, communicator, stream);
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t operation, ncclComm_t communicator, cudaStream_t stream) {
  const Collective c{CollectiveKind::kAllReduce, send, receive, count, type, operation, 0, false};
  return enqueue("ncclAllReduce", c, communicator, stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t operation, ncclComm_t communicator,
                               cudaStream_t stream) {
  const Collective c{
      CollectiveKind::kReduceScatter, send, receive, count, type, operation, 0, false};
  return enqueue("ncclReduceScatter", c, communicator, stream);
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t communicator, cudaStream_t stream) {
  const Collective c{CollectiveKind::kBroadcast, send, receive, count, type, ncclSum, root, false};
  return enqueue("ncclBroadcast", c, communicator, stream);
}

}  // extern "C"
