#include <cuda_runtime_api.h>

#include <atomic>
#include <cstring>
#include <future>
#include <mutex>
#include <thread>

#include "client/collective/nccl/library.h"
#include "client/collective/nccl/staging.h"
#include "gradwarden/device_collective.h"
#include "gradwarden/error.h"

namespace gradwarden {
namespace {

using Clock = std::chrono::steady_clock;

std::string describe(ncclResult_t error, const char* doing) {
  return std::string("nccl: ") + doing + ": " + nccl::library().get_error_string(error);
}

void require(ncclResult_t error, const char* doing) {
  if (error != ncclSuccess) throw Error(describe(error, doing));
}

struct Made {
  std::mutex mutex;
  bool given_up = false;
  ncclComm_t communicator = nullptr;
};

// NCCL waits for all ranks in here and offers no end to it, so a thread of its own does the
// waiting. One that is given up may stay in NCCL for ever; it then owns what it may still get.
ncclComm_t make_communicator(const NcclUniqueId& id, int rank, int size,
                             std::chrono::milliseconds timeout) {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess) throw Error("nccl: there is no CUDA device");
  auto made = std::make_shared<Made>();
  std::promise<ncclResult_t> promise;
  std::future<ncclResult_t> result = promise.get_future();
  std::thread([=, promise = std::move(promise)]() mutable {
    cudaSetDevice(device);
    ncclUniqueId nccl_id;
    std::memcpy(&nccl_id, id.bytes, sizeof nccl_id);
    ncclComm_t communicator = nullptr;
    const ncclResult_t error = nccl::library().comm_init_rank(&communicator, size, nccl_id, rank);
    const std::lock_guard lock(made->mutex);
    made->communicator = communicator;
    if (made->given_up && communicator != nullptr) nccl::library().comm_abort(communicator);
    promise.set_value(error);
  }).detach();
  if (result.wait_for(timeout) == std::future_status::timeout) {
    const std::lock_guard lock(made->mutex);
    made->given_up = true;
    if (made->communicator == nullptr) {
      throw Error("nccl: rank " + std::to_string(rank) + " of " + std::to_string(size) +
                  " waited in vain for the other ranks to make a communicator; check that all of "
                  "them started");
    }
    made->given_up = false;  // it came at the last moment
  }
  require(result.get(), "making a communicator");
  return made->communicator;
}

}  // namespace

struct NcclRanks::Impl {
  Impl(ncclComm_t c, cudaStream_t s, const NcclOptions& o, bool is_own)
      : library(nccl::library()), communicator(c), stream(s), options(o), own(is_own) {}
  ~Impl() {
    if (own && !aborted) library.comm_destroy(communicator);
  }

  DeviceStatus fail(DeviceStatus status, const std::string& text) noexcept;
  ncclResult_t gather(const void* send, void* receive, std::size_t bytes, cudaStream_t on) noexcept;
  ncclResult_t ask() noexcept;
  bool wait_for_stream() noexcept;
  void abort() noexcept;

  const nccl::Library& library;
  const ncclComm_t communicator;
  const cudaStream_t stream;
  const NcclOptions options;
  const bool own;
  int rank = 0;
  int size = 1;
  nccl::Staging staging;
  const std::shared_ptr<std::atomic<bool>> in_call = std::make_shared<std::atomic<bool>>(false);
  std::mutex life;  // between asking the communicator and giving it to an abort
  std::atomic<bool> aborted{false};
  std::atomic<DeviceStatus> failure{DeviceStatus::kOk};  // until an exchange at bind succeeds
  std::atomic<bool> stall_told{false};
  mutable std::mutex error_mutex;  // taken on failures only
  std::string error;
};

DeviceStatus NcclRanks::Impl::fail(DeviceStatus status, const std::string& text) noexcept {
  if (failure.exchange(status) == status) return status;  // said already
  const std::lock_guard lock(error_mutex);
  error = text;
  return status;
}

// The trainer's thread says that it is inside NCCL, so that an abort by another thread does not
// free the communicator under it. A non-blocking communicator has enqueued nothing yet when it says
// "in progress"; what follows on the stream has to come behind it, so that is waited for.
ncclResult_t NcclRanks::Impl::gather(const void* send, void* receive, std::size_t bytes,
                                     cudaStream_t on) noexcept {
  *in_call = true;
  ncclResult_t result = ncclInvalidUsage;
  if (!aborted) {
    result = library.all_gather(send, receive, bytes / 8, ncclFloat64, communicator, on);
    const Clock::time_point deadline = Clock::now() + options.timeout;
    while (result == ncclInProgress && !aborted && Clock::now() < deadline) {
      if (library.comm_get_async_error(communicator, &result) != ncclSuccess) break;
    }
  }
  *in_call = false;
  return result;
}

// Never after the communicator was given to an abort, which frees it.
ncclResult_t NcclRanks::Impl::ask() noexcept {
  const std::unique_lock lock(life, std::try_to_lock);
  if (!lock.owns_lock() || aborted) return ncclSuccess;
  ncclResult_t asynchronous = ncclSuccess;
  const ncclResult_t asked = library.comm_get_async_error(communicator, &asynchronous);
  const ncclResult_t error = asked != ncclSuccess ? asked : asynchronous;
  return error == ncclInProgress ? ncclSuccess : error;
}

// Without ever waiting in CUDA, which would not come back from a dead exchange.
bool NcclRanks::Impl::wait_for_stream() noexcept {
  const Clock::time_point deadline = Clock::now() + options.timeout;
  for (;;) {
    const cudaError_t state = cudaStreamQuery(stream);
    if (state == cudaSuccess) return true;
    if (state != cudaErrorNotReady) {
      fail(DeviceStatus::kCudaError,
           std::string("waiting for the exchange at bind: ") + cudaGetErrorString(state));
      return false;
    }
    if (const ncclResult_t error = ask(); error != ncclSuccess) {
      fail(DeviceStatus::kCollectiveError, describe(error, "the exchange at bind"));
      if (own) abort();
      return false;
    }
    if (Clock::now() >= deadline) {
      fail(DeviceStatus::kCollectiveTimeout,
           "nccl: rank " + std::to_string(rank) +
               " waited in vain for the other ranks at bind; check that all of them call bind()");
      if (own) abort();
      return false;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

// On a thread of its own, which owns the communicator from then on: NCCL's abort frees device
// memory, which may wait for kernels that wait for a dead rank, and nobody else may wait with it.
// The trainer's thread may itself hang inside NCCL; an abort is what frees it, so the wait for it
// to leave is short.
void NcclRanks::Impl::abort() noexcept {
  {
    const std::lock_guard lock(life);
    if (aborted.exchange(true)) return;
  }
  try {
    std::thread([busy = in_call, communicator = communicator, &library = library] {
      const Clock::time_point deadline = Clock::now() + std::chrono::seconds(1);
      while (*busy && Clock::now() < deadline) std::this_thread::yield();
      library.comm_abort(communicator);
    }).detach();
  } catch (const std::exception& error) {
    fail(DeviceStatus::kCollectiveTimeout,
         std::string("nccl: no thread to abort our communicator with: ") + error.what());
  }
}

NcclRanks::NcclRanks(ncclComm_t communicator, cudaStream_t stream, const NcclOptions& options) {
  if (communicator == nullptr) throw Error("nccl: the communicator is null");
  impl_ = std::make_unique<Impl>(communicator, stream, options, false);
  require(impl_->library.comm_user_rank(communicator, &impl_->rank), "asking for the rank");
  require(impl_->library.comm_count(communicator, &impl_->size), "asking for the size");
}

NcclRanks::NcclRanks(const NcclUniqueId& id, int rank, int size, cudaStream_t stream,
                     const NcclOptions& options) {
  if (size < 1 || rank < 0 || rank >= size) {
    throw Error("nccl: rank " + std::to_string(rank) + " of " + std::to_string(size) +
                "; allowed: 0 <= rank < size");
  }
  impl_ = std::make_unique<Impl>(make_communicator(id, rank, size, options.timeout), stream,
                                 options, true);
  impl_->rank = rank;
  impl_->size = size;
}

NcclUniqueId NcclRanks::unique_id() {
  static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));
  ncclUniqueId made;
  require(nccl::library().get_unique_id(&made), "making a unique id");
  NcclUniqueId id;
  std::memcpy(id.bytes, &made, sizeof id.bytes);
  return id;
}

NcclRanks::~NcclRanks() = default;

int NcclRanks::rank() const noexcept { return impl_->rank; }
int NcclRanks::size() const noexcept { return impl_->size; }

std::string NcclRanks::last_error() const {
  const std::lock_guard lock(impl_->error_mutex);
  return impl_->error;
}

bool NcclRanks::all_gather(const void* send, void* receive, std::size_t bytes) noexcept {
  Impl& impl = *impl_;
  if (impl.aborted) return false;
  const std::size_t padded = (bytes + 7) / 8 * 8;
  const auto world = static_cast<std::size_t>(impl.size);
  if (const cudaError_t error = impl.staging.reserve(padded, padded * world)) {
    impl.fail(DeviceStatus::kCudaError,
              std::string("staging the exchange at bind: ") + cudaGetErrorString(error));
    return false;
  }
  cudaError_t copied = impl.staging.put(send, bytes, impl.stream);
  const ncclResult_t gathered =
      impl.gather(impl.staging.device_send(), impl.staging.device_receive(), padded, impl.stream);
  if (gathered != ncclSuccess) {
    impl.fail(DeviceStatus::kCollectiveError, describe(gathered, "the exchange at bind"));
    return false;
  }
  if (copied == cudaSuccess) copied = impl.staging.fetch(padded * world, impl.stream);
  if (copied != cudaSuccess) {
    impl.fail(DeviceStatus::kCudaError,
              std::string("copying for the exchange at bind: ") + cudaGetErrorString(copied));
    return false;
  }
  if (!impl.wait_for_stream()) {
    impl.staging.leave();  // the device may still write there
    return false;
  }
  for (std::size_t rank = 0; rank < world; ++rank) {
    std::memcpy(static_cast<unsigned char*>(receive) + rank * bytes,
                impl.staging.host_receive() + rank * padded, bytes);
  }
  impl.failure = DeviceStatus::kOk;  // whatever was wrong before, the ranks have just met
  return true;
}

DeviceStatus NcclRanks::enqueue_all_gather(const void* send, void* receive, std::size_t bytes,
                                           cudaStream_t stream) noexcept {
  const ncclResult_t result = impl_->gather(send, receive, bytes, stream);
  if (result == ncclSuccess) return DeviceStatus::kOk;
  if (impl_->aborted) return impl_->failure;
  return impl_->fail(DeviceStatus::kCollectiveError, describe(result, "gathering the summaries"));
}

DeviceStatus NcclRanks::poll() noexcept {
  Impl& impl = *impl_;
  if (impl.aborted) return impl.failure;
  if (const ncclResult_t error = impl.ask(); error != ncclSuccess) {
    const DeviceStatus status =
        impl.fail(DeviceStatus::kCollectiveError, describe(error, "an exchange under way"));
    if (impl.own) impl.abort();
    return status;
  }
  return impl.failure;
}

// A stall on a borrowed communicator is told and no more: a rank that then left out its next
// exchange would pair the others' with the trainer's own.
DeviceStatus NcclRanks::stalled(std::chrono::milliseconds elapsed) noexcept {
  Impl& impl = *impl_;
  if (elapsed < impl.options.timeout) {
    impl.stall_told = false;
    return impl.failure;
  }
  const std::string text =
      "nccl: the exchange between the ranks has not ended for " + std::to_string(elapsed.count()) +
      " ms" +
      (impl.own ? "; our communicator is aborted"
                : "; the communicator is the trainer's and is left alone: look for a rank that "
                  "stopped or made its calls in another order");
  if (!impl.own) {
    if (!impl.stall_told.exchange(true)) {
      const std::lock_guard lock(impl.error_mutex);
      impl.error = text;
    }
    return DeviceStatus::kCollectiveTimeout;
  }
  const DeviceStatus status = impl.fail(DeviceStatus::kCollectiveTimeout, text);
  impl.abort();
  return status;
}

}  // namespace gradwarden
