// The clipper as Python calls it: one for the process, lists of gradients in.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "client/python/core/clipper.h"
#include "client/python/core/parts.h"
#include "client/python/core/tensors.h"
#include "client/python/core/without_gil.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

Clipper& clipper() {
  static auto* one = new Clipper;  // never destroyed: its threads may be in use until the end
  return *one;
}

// The gradients of one call. Views of them are good while the caller holds the list.
class GradientList {
 public:
  static std::optional<GradientList> of(const nb::typed<nb::list, nb::any>& gradients) {
    GradientList made;
    made.tensors_.reserve(gradients.size());
    for (std::size_t i = 0; i < gradients.size(); ++i) {
      TensorView view;
      if (!view_of(PyList_GET_ITEM(gradients.ptr(), static_cast<Py_ssize_t>(i)), view)) return {};
      made.tensors_.push_back({view.data, view.count, static_cast<kernels::DType>(view.dtype)});
      made.add(view);
    }
    return made;
  }

  TotalNorm read(double p, unsigned threads) const {
    const WithoutGil released(elements_);
    return clipper().read(tensors_, p, threads);
  }
  void scale(double factor, unsigned threads) const {
    const WithoutGil released(elements_);
    clipper().scale(tensors_, factor, threads);
  }
  bool has_empty() const { return has_empty_; }

  // The dtype to which torch promotes the norms of these.
  DType dtype() const {
    if (seen_[static_cast<std::size_t>(DType::kFloat64)]) return DType::kFloat64;
    const bool bfloat16 = seen_[static_cast<std::size_t>(DType::kBFloat16)];
    const bool float16 = seen_[static_cast<std::size_t>(DType::kFloat16)];
    if (seen_[static_cast<std::size_t>(DType::kFloat32)] || bfloat16 == float16) {
      return DType::kFloat32;
    }
    return bfloat16 ? DType::kBFloat16 : DType::kFloat16;
  }

 private:
  void add(const TensorView& view) {
    seen_[static_cast<std::size_t>(view.dtype)] = true;
    has_empty_ = has_empty_ || view.count == 0;
    elements_ += view.count;
  }

  std::vector<kernels::Tensor> tensors_;
  bool seen_[4] = {};
  bool has_empty_ = false;
  std::uint64_t elements_ = 0;
};

}  // namespace

void add_clip(nb::module_& m) {
  m.def("use_torch", &use_torch, nb::arg("tensor_type"), nb::arg("parameter_type"));
  m.def("scalar", &scalar, nb::arg("value").none());
  nb::class_<TotalNorm>(m, "TotalNorm")
      .def_ro("norm", &TotalNorm::norm)
      .def_ro("nan", &TotalNorm::nan)
      .def_ro("infinite", &TotalNorm::infinite);
  nb::class_<GradientList>(m, "GradientList")
      .def_prop_ro("dtype", &GradientList::dtype)
      .def_prop_ro("has_empty", &GradientList::has_empty)
      .def("read", &GradientList::read, nb::arg("norm_type"), nb::arg("threads"))
      .def("scale", &GradientList::scale, nb::arg("factor"), nb::arg("threads"));
  m.def("gradient_list", &GradientList::of, nb::arg("gradients"),
        "None where one of them is not a dense tensor in host memory of a known dtype.");
}

}  // namespace gradwarden::python
