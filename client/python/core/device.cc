// Gradients in GPU memory: the device's guard as the package's Python code uses it. Addresses and
// streams are numbers, as torch gives them. Where the library was compiled without CUDA, all there
// is is the answer that it cannot be had.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "client/python/core/parts.h"
#include "client/python/core/rank_guard.h"

#ifdef GRADWARDEN_PYTHON_CUDA
#include "client/python/core/device_rank_guard.h"
#endif

namespace nb = nanobind;

namespace gradwarden::python {

#ifndef GRADWARDEN_PYTHON_CUDA

void add_device(nb::module_& m, nb::class_<RankGuard>&) {
  m.def("has_device_guard", [] { return false; });
}

#else

namespace {

using Number = std::uintptr_t;
using Addresses = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename T>
T pointer(Number number) {
  return reinterpret_cast<T>(number);  // NOLINT(performance-no-int-to-ptr)
}

template <typename T>
Number number(T* address) {
  return reinterpret_cast<Number>(address);
}

DeviceRankGuard::Gather gather_through(nb::object object) {
  if (object.is_none()) return {};
  return [callable = shared(std::move(object))](const void* send, void* receive, std::size_t bytes,
                                                cudaStream_t stream) {
    const nb::gil_scoped_acquire gil;
    try {
      (*callable)(number(send), number(receive), bytes, number(stream));
    } catch (const nb::python_error& error) {
      throw std::runtime_error(error.what());
    }
    return true;
  };
}

void make(RankGuard& rank, bool optimizer_scales, nb::object gather, Number communicator,
          Number stream) {
  DeviceRankGuard::Gather exchange = gather_through(std::move(gather));
  const nb::gil_scoped_release released;
  rank.make_device_guard(optimizer_scales, std::move(exchange), pointer<ncclComm_t>(communicator),
                         pointer<cudaStream_t>(stream));
}

void bind(RankGuard& rank, const std::vector<TensorShard>& gradients,
          const std::vector<TensorShard>& local, const std::vector<TensorShard>& parameters,
          Number stream) {
  rank.device().guard().bind({gradients, local, parameters, {}}, pointer<cudaStream_t>(stream));
}

using Update = DeviceStatus (DeviceGuard::*)(std::span<void* const>, cudaStream_t) noexcept;

template <Update kUpdate>
void update(RankGuard& rank, const Addresses& addresses, Number stream) {
  DeviceRankGuard& device = rank.device();
  std::vector<void*> data(addresses.size());
  for (std::size_t i = 0; i < data.size(); ++i)
    data[i] = pointer<void*>(static_cast<Number>(addresses.data()[i]));
  const nb::gil_scoped_release released;
  DeviceStatus status = (device.guard().*kUpdate)(data, pointer<cudaStream_t>(stream));
  // Too many copies under way: the device is many steps behind the host, which may well wait.
  while (status == DeviceStatus::kBusy) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    status = (device.guard().*kUpdate)(data, pointer<cudaStream_t>(stream));
  }
  device.check(status);
}

void step(RankGuard& rank, std::uint64_t at, std::optional<double> loss, Number loss_at,
          std::optional<double> learning_rate, std::optional<double> loss_scale,
          const std::vector<std::string>& batch_ids, Number stream) {
  const std::vector<std::string_view> ids(batch_ids.begin(), batch_ids.end());
  DeviceRankGuard& device = rank.device();
  device.check(device.guard().step({.step = at,
                                    .loss = loss,
                                    .loss_at = pointer<const float*>(loss_at),
                                    .learning_rate = learning_rate,
                                    .loss_scale = loss_scale,
                                    .batch_ids = ids},
                                   pointer<cudaStream_t>(stream)));
}

void observe_local(RankGuard& rank, Number stream) {
  DeviceRankGuard& device = rank.device();
  device.check(device.guard().observe_local(pointer<cudaStream_t>(stream)));
}

nb::bytes save_state(RankGuard& rank, Number stream) {
  const auto state = rank.device().guard().save_state(pointer<cudaStream_t>(stream));
  return nb::bytes(state.data(), state.size());
}

void restore_state(RankGuard& rank, const nb::bytes& state, Number stream) {
  rank.device().guard().restore_state({static_cast<const std::byte*>(state.data()), state.size()},
                                      pointer<cudaStream_t>(stream));
}

}  // namespace

void add_device(nb::module_& m, nb::class_<RankGuard>& guard) {
  using WithoutGil = nb::call_guard<nb::gil_scoped_release>;
  m.def("has_device_guard", [] { return true; });
  guard
      .def("device_make", &make, nb::arg("optimizer_scales"), nb::arg("gather").none(),
           nb::arg("communicator"), nb::arg("stream"))
      .def("device_bind", &bind, nb::arg("gradients"), nb::arg("local"), nb::arg("parameters"),
           nb::arg("stream"), WithoutGil())
      .def("device_update", &update<&DeviceGuard::update>, nb::arg("addresses"), nb::arg("stream"))
      .def("device_update_parameters", &update<&DeviceGuard::update_parameters>,
           nb::arg("addresses"), nb::arg("stream"))
      .def("device_step", &step, nb::arg("step"), nb::arg("loss").none(), nb::arg("loss_at"),
           nb::arg("learning_rate").none(), nb::arg("loss_scale").none(), nb::arg("batch_ids"),
           nb::arg("stream"), WithoutGil())
      .def("device_observe_local", &observe_local, nb::arg("stream"), WithoutGil())
      .def(
          "device_wait", [](RankGuard& rank, std::uint64_t at) { return rank.device().wait(at); },
          nb::arg("step"), WithoutGil())
      .def("device_finished", [](RankGuard& rank) { return rank.device().fetch(); })
      .def("device_found_inf",
           [](RankGuard& rank) { return number(rank.device().guard().found_inf()); })
      .def("device_grad_scale",
           [](RankGuard& rank) { return number(rank.device().guard().grad_scale()); })
      .def("device_save_state", &save_state, nb::arg("stream"))
      .def("device_restore_state", &restore_state, nb::arg("state"), nb::arg("stream"));
}

#endif

}  // namespace gradwarden::python
