// What one rank of a Python trainer owns: its collective, its reporter if it has one, and its
// guard, made and destroyed in the order that they need.
//
// One thread at a time, as Guard. Knows no Python: the exchange between the ranks is a function
// that the module hands in. Tensors belong to the caller and outlive the binding.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/guard.h"
#include "gradwarden/reporter.h"

namespace gradwarden::python {

class RankGuard {
 public:
  // Collective if `reporting` is given: rank 0 shares the attempt's id. An empty exchange is a run
  // of one rank.
  RankGuard(const GuardOptions& options, const std::optional<ReporterOptions>& reporting, int rank,
            int size, CallbackCollective::AllGather exchange);
  // As close().
  ~RankGuard();
  RankGuard(const RankGuard&) = delete;
  RankGuard& operator=(const RankGuard&) = delete;

  void bind(std::span<const TensorShard> gradients, std::span<const TensorShard> local);
  void observe_local();
  StepOutcome step(const StepInput& input);
  // For gradients elsewhere; as the guard's calls of these names.
  std::vector<Stretch> stretches() const;
  StepOutcome step(const StepInput& input, std::span<const StretchStatistics> found,
                   std::span<StretchScaling> to_do);
  void observe_local_outside(std::span<const StretchStatistics> found);
  std::vector<std::byte> save_state() const;
  void restore_state(std::span<const std::byte> state);

  // Ends the guard, then sends what is left. True if nothing was left unacknowledged. The other
  // calls then throw Error; a second close() does nothing.
  bool close();

 private:
  Guard& open() const;

  std::unique_ptr<Collective> ranks_;
  std::unique_ptr<Reporter> reporter_;
  std::unique_ptr<Guard> guard_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_
