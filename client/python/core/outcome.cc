// The outcome of a step as a Python object.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>

#include "client/python/core/last_step.h"
#include "client/python/core/parts.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

std::string text_of(const Outcome& o) {
  return "StepOutcome(step=" + std::to_string(o.step) + ", decision='" +
         std::string(to_string(o.decision)) + "', reason='" + std::string(to_string(o.reason)) +
         "', grad_norm=" + std::to_string(o.grad_norm) + ")";
}

void add_non_finite(nb::module_& m) {
  nb::class_<NonFinite>(m, "NonFinite",
                        "Elements of one tensor that are not finite: how many, and "
                        "the first one's index in the order of memory.")
      .def_ro("tensor", &NonFinite::tensor)
      .def_prop_ro("rank", [](const NonFinite& n) { return n.found.rank; })
      .def_prop_ro("index", [](const NonFinite& n) { return n.found.index; })
      .def_prop_ro("nan_count", [](const NonFinite& n) { return n.found.nan_count; })
      .def_prop_ro("inf_count", [](const NonFinite& n) { return n.found.inf_count; })
      .def_prop_ro("local", [](const NonFinite& n) { return n.found.local; });
}

}  // namespace

void add_outcome(nb::module_& m) {
  add_non_finite(m);
  nb::class_<Outcome>(m, "StepOutcome", "What the guard decided of one step, and why.")
      .def_ro("step", &Outcome::step)
      .def_ro("loss", &Outcome::loss)
      .def_ro("learning_rate", &Outcome::learning_rate)
      .def_prop_ro("decision", [](const Outcome& o) { return std::string(to_string(o.decision)); })
      .def_prop_ro("reason", [](const Outcome& o) { return std::string(to_string(o.reason)); })
      .def_prop_ro("grad_norm", [](const Outcome& o) { return o.grad_norm; })
      .def_prop_ro("clip_coefficient", [](const Outcome& o) { return o.clip_coefficient; })
      .def_prop_ro("learning_rate_factor", [](const Outcome& o) { return o.learning_rate_factor; })
      .def_prop_ro("clipped_groups", [](const Outcome& o) { return o.clipped_groups; })
      .def_prop_ro("clipped_tensors", [](const Outcome& o) { return o.clipped_tensors; })
      .def_prop_ro("grad_scale", [](const Outcome& o) { return o.grad_scale; })
      .def_ro("threshold", &Outcome::threshold)
      .def_ro("rolling_mean", &Outcome::rolling_mean)
      .def_ro("clip_threshold", &Outcome::clip_threshold)
      .def_ro("max_abs", &Outcome::max_abs)
      .def_ro("nan_count", &Outcome::nan_count)
      .def_ro("inf_count", &Outcome::inf_count)
      .def_ro("non_finite", &Outcome::non_finite)
      .def_prop_ro("shadow", [](const Outcome& o) { return o.shadow; })
      .def_prop_ro("stop_requested", [](const Outcome& o) { return o.stop_requested; })
      .def_prop_ro("should_update", [](const Outcome& o) { return o.should_update(); })
      .def("__repr__", &text_of);
}

}  // namespace gradwarden::python
