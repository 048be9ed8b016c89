// Where the gradients and parameters are in this step: PyTorch may give a gradient new memory in
// every step (zero_grad() drops the old one).
//
// With the GIL held, by the guard's thread.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_FOLLOW_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_FOLLOW_H_

#include <nanobind/nanobind.h>

#include <cstddef>
#include <vector>

#include "client/python/core/rank_guard.h"

namespace gradwarden::python {

// The lists of one binding, and the addresses of its last step. `sources` are objects whose .grad
// is the tensor, or None where there is none, in the order of bind.
class Follower {
 public:
  using Objects = nanobind::typed<nanobind::list, nanobind::any>;
  Follower(Objects sources, Objects parameters)
      : sources_(std::move(sources)), parameters_(std::move(parameters)) {}

  // Looks up every gradient. Returns the position of the first that is not dense memory of the
  // bound dtype and size, or -1, and the addresses are then known.
  std::ptrdiff_t find_gradients(RankGuard& guard);
  // The same of the parameters themselves.
  std::ptrdiff_t find_parameters(RankGuard& guard);

  // Hands the addresses to the guard.
  void place(RankGuard& guard) const { guard.update_gradients(gradients_); }
  void place_local(RankGuard& guard) const { guard.update_local(gradients_); }

  // Tensors without a gradient, by the last look.
  std::size_t absent() const { return absent_; }

 private:
  nanobind::list sources_;
  nanobind::list parameters_;
  std::vector<void*> gradients_;
  std::vector<void*> addresses_;  // of the parameters
  std::size_t absent_ = 0;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_FOLLOW_H_
