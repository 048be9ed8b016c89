#include "client/python/core/rank_guard.h"

#include <utility>

#include "gradwarden/error.h"

namespace gradwarden::python {

RankGuard::RankGuard(const GuardOptions& options, const std::optional<ReporterOptions>& reporting,
                     int rank, int size, CallbackCollective::AllGather exchange) {
  if (exchange) {
    ranks_ = std::make_unique<CallbackCollective>(rank, size, std::move(exchange));
  } else {
    ranks_ = std::make_unique<SingleRank>();
  }
  if (reporting) reporter_ = std::make_unique<Reporter>(*reporting, *ranks_);
  guard_ = std::make_unique<Guard>(options, *ranks_, reporter_.get());
}

RankGuard::~RankGuard() { close(); }

Guard& RankGuard::open() const {
  if (guard_ == nullptr) throw Error("guard: it is closed; make a new one");
  return *guard_;
}

void RankGuard::bind(std::span<const TensorShard> gradients, std::span<const TensorShard> local) {
  open().bind(gradients, local);
}

void RankGuard::observe_local() { open().observe_local(); }

StepOutcome RankGuard::step(const StepInput& input) { return open().step(input); }

std::vector<Stretch> RankGuard::stretches() const { return open().stretches(); }

StepOutcome RankGuard::step(const StepInput& input, std::span<const StretchStatistics> found,
                            std::span<StretchScaling> to_do) {
  return open().step(input, found, to_do);
}

void RankGuard::observe_local_outside(std::span<const StretchStatistics> found) {
  open().observe_local(found);
}

std::vector<std::byte> RankGuard::save_state() const { return open().save_state(); }

void RankGuard::restore_state(std::span<const std::byte> state) { open().restore_state(state); }

bool RankGuard::close() {
  guard_.reset();  // it is what the reporter drains
  return reporter_ == nullptr || reporter_->close();
}

}  // namespace gradwarden::python
