#include "client/python/core/follow.h"

#include "client/python/core/parts.h"
#include "client/python/core/tensors.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

bool fits(const TensorView& view, const RankGuard::Bound& bound) {
  return view.count == bound.count && view.dtype == bound.dtype;
}

nb::object item(const nb::list& list, std::size_t i) {
  return nb::borrow(PyList_GET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i)));
}

// The very same objects in the same order; the lists of a model's parameters in some nanoseconds
// each.
bool same_objects(const Follower::Objects& a, const Follower::Objects& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto at = static_cast<Py_ssize_t>(i);
    if (PyList_GET_ITEM(a.ptr(), at) != PyList_GET_ITEM(b.ptr(), at)) return false;
  }
  return true;
}

}  // namespace

std::ptrdiff_t Follower::find_gradients(RankGuard& guard) {
  static PyObject* const kGrad = PyUnicode_InternFromString("grad");
  const std::vector<RankGuard::Bound>& bound = guard.bound();
  const std::size_t count = sources_.size();
  gradients_.resize(count);
  absent_ = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const nb::object source = item(sources_, i);  // the getter may be Python code
    const nb::object gradient = nb::steal(PyObject_GetAttr(source.ptr(), kGrad));
    if (!gradient.is_valid()) throw nb::python_error();
    TensorView view;
    if (gradient.is_none()) {
      ++absent_;
      view.data = bound.at(i).count == 0 ? nullptr : guard.zeros();
    } else if (!view_of(gradient.ptr(), view) || !fits(view, bound.at(i))) {
      return static_cast<std::ptrdiff_t>(i);
    }
    gradients_[i] = view.data;
  }
  return -1;
}

std::ptrdiff_t Follower::find_parameters(RankGuard& guard) {
  const std::vector<RankGuard::Bound>& bound = guard.bound_parameters();
  addresses_.resize(parameters_.size());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    TensorView view;
    if (!view_of(item(parameters_, i).ptr(), view) || !fits(view, bound.at(i))) {
      return static_cast<std::ptrdiff_t>(i);
    }
    addresses_[i] = view.data;
  }
  guard.update_parameters(addresses_);
  return -1;
}

void add_follower(nb::module_& m) {
  m.def("same_objects", &same_objects, nb::arg("a"), nb::arg("b"));
  nb::class_<Follower>(m, "Follower")
      .def(nb::init<Follower::Objects, Follower::Objects>(), nb::arg("sources"),
           nb::arg("parameters"))
      .def("find_gradients", &Follower::find_gradients, nb::arg("guard"))
      .def("find_parameters", &Follower::find_parameters, nb::arg("guard"))
      .def("place", &Follower::place, nb::arg("guard"))
      .def("place_local", &Follower::place_local, nb::arg("guard"))
      .def_prop_ro("absent", &Follower::absent);
}

}  // namespace gradwarden::python
