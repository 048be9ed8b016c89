#include "client/python/core/rank_guard.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "gradwarden/error.h"

namespace gradwarden::python {
namespace {

std::vector<RankGuard::Bound> sizes_of(std::span<const TensorShard> shards) {
  std::vector<RankGuard::Bound> sizes;
  sizes.reserve(shards.size());
  for (const TensorShard& shard : shards) sizes.push_back({shard.count, shard.dtype});
  return sizes;
}

}  // namespace

RankGuard::RankGuard(const GuardOptions& options, const std::optional<ReporterOptions>& reporting,
                     int rank, int size, CallbackCollective::AllGather exchange)
    : process_(getpid()), single_(!exchange) {
  if (exchange) {
    ranks_ = std::make_unique<CallbackCollective>(rank, size, std::move(exchange));
  } else {
    ranks_ = std::make_unique<SingleRank>();
  }
  if (reporting) reporter_ = std::make_unique<Reporter>(*reporting, *ranks_);
  last_ = std::make_unique<LastStep>(reporter_.get());
  guard_ = std::make_unique<Guard>(options, *ranks_, last_.get());
}

// The guard's threads are the parent's: in a child, waiting for them would never end.
RankGuard::~RankGuard() {
  if (!forked()) {
    close();
    return;
  }
  static_cast<void>(guard_.release());
  static_cast<void>(last_.release());
  static_cast<void>(reporter_.release());
  static_cast<void>(ranks_.release());
}

bool RankGuard::forked() const { return process_ != getpid(); }

Guard& RankGuard::open() const {
  if (guard_ == nullptr) throw Error("guard: it is closed; make a new one");
  return *guard_;
}

void RankGuard::bind(std::span<const TensorShard> gradients, std::span<const TensorShard> local,
                     std::span<const TensorShard> parameters) {
  open().bind({gradients, local, parameters, {}});
  bound_ = sizes_of(gradients);
  bound_parameters_ = sizes_of(parameters);
  elements_ = 0;
  for (const Bound& one : bound_) elements_ += one.count;
  zeros_.reset();
}

void* RankGuard::zeros() {
  if (zeros_ == nullptr) {
    std::uint64_t bytes = 1;
    for (const Bound& one : bound_) bytes = std::max(bytes, one.count * dtype_bytes(one.dtype));
    zeros_.reset(std::calloc(bytes, 1));
    if (zeros_ == nullptr) throw std::bad_alloc();
  }
  return zeros_.get();
}

void RankGuard::Free::operator()(void* memory) const { std::free(memory); }

Outcome RankGuard::step(const StepInput& input) {
  const StepOutcome outcome = open().step(input);
  return last_->told(outcome, input);
}

Outcome RankGuard::step(const StepInput& input, std::span<const StretchStatistics> found,
                        std::span<StretchScaling> to_do) {
  const StepOutcome outcome = open().step(input, found, to_do);
  return last_->told(outcome, input);
}

void RankGuard::mark_checkpoint(std::uint64_t step) {
  open();
  if (reporter_ != nullptr) reporter_->mark_checkpoint(step);
}

bool RankGuard::close() {
  if (forked()) return true;
  guard_.reset();  // it is what the reporter drains
  return reporter_ == nullptr || reporter_->close();
}

}  // namespace gradwarden::python
