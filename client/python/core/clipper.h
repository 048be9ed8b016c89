// The two passes of clip_grad_norm_ over gradients in host memory. Knows no Python.
//
// The first call makes threads and a table of the tensors' sizes, and later ones find them made;
// the table is made again when the sizes change. Any thread may call, one at a time; after a
// fork() the child makes threads of its own.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_CLIPPER_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_CLIPPER_H_

#include <sys/types.h>

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cpu/parallel_for.h"
#include "kernels/cpu/scale.h"
#include "kernels/cpu/statistics.h"

namespace gradwarden::python {

struct TotalNorm {
  double norm = 0;  // of the finite elements; infinite where it is beyond float64
  bool nan = false;
  bool infinite = false;  // an element, or the norm
};

class Clipper {
 public:
  Clipper();
  ~Clipper();
  Clipper(const Clipper&) = delete;
  Clipper& operator=(const Clipper&) = delete;

  // `p` is above 0 or infinite; `threads` is 1 or more, the caller's included.
  TotalNorm read(std::span<const kernels::Tensor> tensors, double p, unsigned threads);

  // Multiplies all elements by `factor`, those of a tensor that is listed twice by its square.
  void scale(std::span<const kernels::Tensor> tensors, double factor, unsigned threads);

 private:
  struct Team;
  Team& team(unsigned threads);
  bool same_sizes(std::span<const kernels::Tensor> tensors) const;

  std::mutex mutex_;
  std::unique_ptr<Team> team_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_CLIPPER_H_
