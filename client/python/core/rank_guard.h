// What one rank of a Python trainer owns: its collective, its reporter if it has one, and its
// guard, made and destroyed in the order that they need.
//
// One thread at a time, as Guard. Knows no Python: the exchange between the ranks is a function
// that the module hands in. Tensors belong to the caller and outlive the step that reads them. In a
// process that was forked from the one that made it, it is left alone and never destroyed.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "client/python/core/last_step.h"
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

  void bind(std::span<const TensorShard> gradients, std::span<const TensorShard> local,
            std::span<const TensorShard> parameters);

  // Of the bound gradients, in their order.
  struct Bound {
    std::uint64_t count = 0;
    DType dtype = DType::kFloat32;
  };
  const std::vector<Bound>& bound() const { return bound_; }
  const std::vector<Bound>& bound_parameters() const { return bound_parameters_; }

  // In all of them.
  std::uint64_t elements() const { return elements_; }
  // Of the run: a single rank waits for nobody.
  bool single() const { return single_; }

  // Zeros, as many as the largest bound gradient has: what a parameter without a gradient is read
  // as. Memory is taken from the system where it is first asked for.
  void* zeros();

  // As the guard's calls of these names.
  void update_gradients(std::span<void* const> data) { open().update_gradients(data); }
  void update_local(std::span<void* const> data) { open().update_local(data); }
  void update_parameters(std::span<void* const> data) { open().update_parameters(data); }
  void observe_local() { open().observe_local(); }
  Outcome step(const StepInput& input);
  // The same of gradients elsewhere.
  Outcome step(const StepInput& input, std::span<const StretchStatistics> found,
               std::span<StretchScaling> to_do);
  void observe_local_outside(std::span<const StretchStatistics> found) {
    open().observe_local(found);
  }
  std::vector<Stretch> stretches() const { return open().stretches(); }
  std::vector<std::byte> save_state() const { return open().save_state(); }
  void restore_state(std::span<const std::byte> state) { open().restore_state(state); }
  void mark_checkpoint(std::uint64_t step);

  // Ends the guard, then sends what is left. True if nothing was left unacknowledged. The other
  // calls then throw Error; a second close() does nothing.
  bool close();

 private:
  Guard& open() const;
  bool forked() const;

  struct Free {
    void operator()(void* memory) const;
  };

  const pid_t process_;
  std::unique_ptr<Collective> ranks_;
  std::unique_ptr<Reporter> reporter_;
  std::unique_ptr<LastStep> last_;
  std::unique_ptr<Guard> guard_;
  const bool single_;
  std::uint64_t elements_ = 0;
  std::vector<Bound> bound_;
  std::vector<Bound> bound_parameters_;
  std::unique_ptr<void, Free> zeros_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_RANK_GUARD_H_
