#include "client/python/core/device_rank_guard.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <thread>
#include <utility>

#include "gradwarden/error.h"

namespace gradwarden::python {
namespace {

// How long the record of a step may come after its decision: two kernels later on the same stream.
constexpr std::chrono::milliseconds kRecordAfterDecision{20};

// Ranks whose exchange on the device is a function of the trainer's framework.
class GatheringRanks final : public DeviceCollective {
 public:
  GatheringRanks(Collective& host, DeviceRankGuard::Gather gather)
      : host_(host), gather_(std::move(gather)) {}

  int rank() const noexcept override { return host_.rank(); }
  int size() const noexcept override { return host_.size(); }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override {
    return host_.all_gather(send, receive, bytes);
  }
  std::string last_error() const override { return error_.empty() ? host_.last_error() : error_; }

  DeviceStatus enqueue_all_gather(const void* send, void* receive, std::size_t bytes,
                                  cudaStream_t stream) noexcept override {
    try {
      if (gather_(send, receive, bytes, stream)) return DeviceStatus::kOk;
      error_ = "the exchange of the process group failed";
    } catch (const std::exception& error) {
      error_ = error.what();
    }
    return DeviceStatus::kCollectiveError;
  }
  // The framework watches its own communicator.
  DeviceStatus poll() noexcept override { return DeviceStatus::kOk; }
  DeviceStatus stalled(std::chrono::milliseconds) noexcept override { return DeviceStatus::kOk; }

 private:
  Collective& host_;
  const DeviceRankGuard::Gather gather_;
  std::string error_;
};

std::unique_ptr<DeviceCollective> ranks_of(Collective& host, DeviceRankGuard::Gather gather,
                                           [[maybe_unused]] ncclComm_t communicator,
                                           [[maybe_unused]] cudaStream_t stream) {
  if (host.size() == 1) return std::make_unique<SingleDevice>();
#ifdef GRADWARDEN_PYTHON_NCCL
  if (communicator != nullptr) return std::make_unique<NcclRanks>(communicator, stream);
#endif
  if (!gather) throw Error("guard: several ranks, and no way to exchange memory of their devices");
  return std::make_unique<GatheringRanks>(host, std::move(gather));
}

}  // namespace

DeviceRankGuard::DeviceRankGuard(const DeviceGuardOptions& options, Collective& host, Gather gather,
                                 ncclComm_t communicator, cudaStream_t stream, StepSink* next)
    : ranks_(ranks_of(host, std::move(gather), communicator, stream)),
      finished_(next),
      guard_(std::make_unique<DeviceGuard>(options, *ranks_, &finished_)) {}

DeviceRankGuard::~DeviceRankGuard() = default;

void DeviceRankGuard::check(DeviceStatus status) const {
  if (status == DeviceStatus::kOk) return;
  std::string text = "guard: " + std::string(to_string(status));
  if (const std::string why = guard_->last_error(); !why.empty()) text += ": " + why;
  throw Error(text);
}

Outcome DeviceRankGuard::wait(std::uint64_t step) {
  StepOutcome decided;
  check(guard_->wait(&decided));
  Outcome told{decided};
  told.step = step;
  const auto deadline = std::chrono::steady_clock::now() + kRecordAfterDecision;
  do {
    std::ranges::move(finished_.fetch(), std::back_inserter(fetched_));
    if (!fetched_.empty() && fetched_.back().step == step) {
      Outcome whole = fetched_.back();
      static_cast<StepOutcome&>(whole) = decided;
      return whole;
    }
    std::this_thread::yield();
  } while (std::chrono::steady_clock::now() < deadline);
  // Of the record only this is needed: whether a scaler is to hear of it.
  const bool bad =
      decided.reason == Reason::kNonFinite || decided.reason == Reason::kLossScaleOverflow;
  told.nan_count = bad ? 1 : 0;
  return told;
}

std::vector<Outcome> DeviceRankGuard::fetch() {
  std::vector<Outcome> all = std::exchange(fetched_, {});
  std::ranges::move(finished_.fetch(), std::back_inserter(all));
  return all;
}

}  // namespace gradwarden::python
