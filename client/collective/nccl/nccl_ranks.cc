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
  std::atomic<bool> in_call{false};
  std::atomic<bool> aborted{false};
  // Of an own communicator for good; of a borrowed one until it goes on.
  std::atomic<DeviceStatus> failure{DeviceStatus::kOk};
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
// free the communicator under it.
ncclResult_t NcclRanks::Impl::gather(const void* send, void* receive, std::size_t bytes,
                                     cudaStream_t on) noexcept {
  in_call = true;
  ncclResult_t result = ncclInvalidUsage;
  if (!aborted) {
    result = library.all_gather(send, receive, bytes / 8, ncclFloat64, communicator, on);
  }
  in_call = false;
  return result;
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
    ncclResult_t asynchronous = ncclSuccess;
    if (library.comm_get_async_error(communicator, &asynchronous) == ncclSuccess &&
        asynchronous != ncclSuccess && asynchronous != ncclInProgress) {
      fail(DeviceStatus::kCollectiveError, describe(asynchronous, "the exchange at bind"));
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

// The trainer's thread may itself hang inside NCCL; an abort is what frees it, so the wait for it
// to leave is short.
void NcclRanks::Impl::abort() noexcept {
  if (aborted.exchange(true)) return;
  const Clock::time_point deadline = Clock::now() + std::chrono::seconds(1);
  while (in_call && Clock::now() < deadline) std::this_thread::yield();
  library.comm_abort(communicator);
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
  ncclResult_t asynchronous = ncclSuccess;
  const ncclResult_t asked = impl.library.comm_get_async_error(impl.communicator, &asynchronous);
  const ncclResult_t error = asked != ncclSuccess ? asked : asynchronous;
  if (error != ncclSuccess && error != ncclInProgress) {
    const DeviceStatus status =
        impl.fail(DeviceStatus::kCollectiveError, describe(error, "an exchange under way"));
    if (impl.own) impl.abort();
    return status;
  }
  return impl.failure;
}

DeviceStatus NcclRanks::stalled(std::chrono::milliseconds elapsed) noexcept {
  Impl& impl = *impl_;
  if (elapsed < impl.options.timeout) {
    // A borrowed communicator that went on again is no longer at fault.
    DeviceStatus stall = DeviceStatus::kCollectiveTimeout;
    if (!impl.own) impl.failure.compare_exchange_strong(stall, DeviceStatus::kOk);
    return impl.failure;
  }
  const DeviceStatus status = impl.fail(
      DeviceStatus::kCollectiveTimeout,
      "nccl: the exchange between the ranks has not ended for " + std::to_string(elapsed.count()) +
          " ms" +
          (impl.own ? "; our communicator is aborted"
                    : "; the communicator is the trainer's and is left alone: look for a rank that "
                      "stopped or made its calls in another order"));
  if (impl.own) impl.abort();
  return status;
}

}  // namespace gradwarden
