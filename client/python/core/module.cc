// The extension module gradwarden._core: the C++ guard as the package's Python code uses it. No
// torch here: tensors come as addresses, and the exchange between ranks as a Python callable.
//
// The GIL is given up while the guard works and taken again only inside that callable.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "client/python/core/parts.h"
#include "client/python/core/rank_guard.h"
#include "client/python/core/without_gil.h"
#include "gradwarden/error.h"
#include "gradwarden/version.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

nb::object view_of(const void* data, std::size_t bytes) {
  // torch.frombuffer warns about read-only memory, so the bytes to send come as writable too; the
  // callable is ours and only reads them.
  auto* memory = static_cast<char*>(const_cast<void*>(data));
  PyObject* view = PyMemoryView_FromMemory(memory, static_cast<Py_ssize_t>(bytes), PyBUF_WRITE);
  if (view == nullptr) throw nb::python_error();
  return nb::steal(view);
}

// Shared by copies that come and go without the GIL; its end takes it.
std::shared_ptr<nb::object> shared(nb::object object) {
  return {new nb::object(std::move(object)), [](nb::object* last) {
            const nb::gil_scoped_acquire gil;
            delete last;
          }};
}

// What Python raises becomes the reason of a failed exchange. The text is taken here, under the
// GIL.
CallbackCollective::AllGather exchange_through(nb::object object, int size) {
  return [callable = shared(std::move(object)), size](const void* send, void* receive,
                                                      std::size_t bytes) {
    if (bytes == 0) return true;
    const nb::gil_scoped_acquire gil;
    try {
      (*callable)(view_of(send, bytes), view_of(receive, bytes * static_cast<std::size_t>(size)));
    } catch (const nb::python_error& error) {
      throw std::runtime_error(error.what());
    }
    return true;
  };
}

void make_guard(RankGuard* self, const GuardOptions& options,
                const std::optional<ReporterOptions>& reporting, int rank, int size,
                nb::object exchange) {
  CallbackCollective::AllGather all_gather;
  if (!exchange.is_none()) all_gather = exchange_through(std::move(exchange), size);
  const nb::gil_scoped_release released;
  new (self) RankGuard(options, reporting, rank, size, std::move(all_gather));
}

Outcome step(RankGuard& guard, std::uint64_t number, std::optional<double> loss,
             std::optional<double> learning_rate, std::optional<double> loss_scale, bool unscaled,
             bool optimizer_scales, const std::vector<std::string>& batch_ids) {
  const std::vector<std::string_view> ids(batch_ids.begin(), batch_ids.end());
  const WithoutGil released(guard.single() ? guard.elements() : WithoutGil::kWorthIt);
  return guard.step({.step = number,
                     .loss = loss,
                     .learning_rate = learning_rate,
                     .loss_scale = loss_scale,
                     .unscaled = unscaled,
                     .optimizer_scales = optimizer_scales,
                     .batch_ids = ids});
}

nb::bytes save_state(const RankGuard& guard) {
  const std::vector<std::byte> state = guard.save_state();
  return nb::bytes(state.data(), state.size());
}

void restore_state(RankGuard& guard, const nb::bytes& state) {
  guard.restore_state({static_cast<const std::byte*>(state.data()), state.size()});
}

using Extents = std::vector<std::uint64_t>;

void make_shard(TensorShard* self, std::string name, std::string group, std::uintptr_t address,
                std::uint64_t count, DType dtype, std::uint64_t total_count, std::uint64_t offset,
                Extents shape, Extents start, Extents extent, std::uint32_t replicas,
                bool identical) {
  new (self) TensorShard{};
  self->name = std::move(name);
  self->group = std::move(group);
  // Tensor.data_ptr() is a number. NOLINTNEXTLINE(performance-no-int-to-ptr)
  self->data = reinterpret_cast<void*>(address);
  self->count = count;
  self->dtype = dtype;
  self->total_count = total_count;
  self->offset = offset;
  self->shape = std::move(shape);
  self->start = std::move(start);
  self->extent = std::move(extent);
  self->replicas = replicas;
  self->identical = identical;
}

void add_tensors(nb::module_& m) {
  nb::enum_<DType>(m, "DType")
      .value("FLOAT64", DType::kFloat64)
      .value("FLOAT32", DType::kFloat32)
      .value("BFLOAT16", DType::kBFloat16)
      .value("FLOAT16", DType::kFloat16);
  nb::class_<TensorShard>(m, "TensorShard")
      .def("__init__", &make_shard, nb::arg("name"), nb::arg("group"), nb::arg("address"),
           nb::arg("count"), nb::arg("dtype"), nb::kw_only(), nb::arg("total_count") = 0,
           nb::arg("offset") = 0, nb::arg("shape") = Extents(), nb::arg("start") = Extents(),
           nb::arg("extent") = Extents(), nb::arg("replicas") = 0, nb::arg("identical") = false);
}

nb::class_<RankGuard> add_guard(nb::module_& m) {
  using Released = nb::call_guard<nb::gil_scoped_release>;
  return nb::class_<RankGuard>(m, "RankGuard")
      .def("__init__", &make_guard, nb::arg("options"), nb::arg("reporting").none(),
           nb::arg("rank"), nb::arg("size"), nb::arg("exchange").none())
      .def(
          "bind",
          [](RankGuard& guard, const std::vector<TensorShard>& gradients,
             const std::vector<TensorShard>& local, const std::vector<TensorShard>& parameters) {
            guard.bind(gradients, local, parameters);
          },
          nb::arg("gradients"), nb::arg("local"), nb::arg("parameters"), Released())
      .def("observe_local", &RankGuard::observe_local, Released())
      .def("step", &step, nb::arg("step"), nb::arg("loss").none(), nb::arg("learning_rate").none(),
           nb::arg("loss_scale").none(), nb::arg("unscaled"), nb::arg("optimizer_scales"),
           nb::arg("batch_ids"))
      .def("mark_checkpoint", &RankGuard::mark_checkpoint, nb::arg("step"))
      .def("save_state", &save_state)
      .def("restore_state", &restore_state, nb::arg("state"))
      .def("close", &RankGuard::close, Released());
}

}  // namespace
}  // namespace gradwarden::python

NB_MODULE(_core, m) {
  using namespace gradwarden::python;
  // At exit a guard may still be held, by a traceback for example; that is no news to a trainer.
  nb::set_leak_warnings(false);
  const nb::exception<gradwarden::Error> error(m, "Error", PyExc_RuntimeError);
  m.def("version", [] { return std::string(gradwarden::version()); });
  add_options(m);
  add_tensors(m);
  add_outcome(m);
  nb::class_<RankGuard> guard = add_guard(m);
  add_outside(m, guard);
  add_follower(m);
  add_clip(m);
}
