// Where a torch tensor lies in memory, read through the C functions that torch offers to other
// libraries (DLPack's exchange of tensors): tens of nanoseconds, where the same by attributes of
// the Python object would cost a microsecond for each of thousands of gradients in every step.
//
// All calls with the GIL held.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_TENSORS_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_TENSORS_H_

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>

#include "gradwarden/tensor.h"

namespace gradwarden::python {

// Valid while the tensor lives and nobody gives it other memory.
struct TensorView {
  void* data = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::kFloat32;
};

// Before any view: torch.Tensor and torch.nn.Parameter. Throws Error where torch has no exchange
// that is known here.
void use_torch(nanobind::handle tensor_type, nanobind::handle parameter_type);

// True if `object` is a tensor of these very types (a subclass may mean something else by its
// memory) in host memory, of a dtype that the kernels read, whose elements fill one stretch of
// memory, in any order. Leaves no Python error behind.
bool view_of(PyObject* object, TensorView& out);

// The one element of such a tensor; empty for all else. Without giving up the GIL, as item() does.
std::optional<double> scalar(nanobind::handle object);

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_TENSORS_H_
