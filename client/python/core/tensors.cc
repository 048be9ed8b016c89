#include "client/python/core/tensors.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>

#include "gradwarden/error.h"
#include "kernels/cpu/element.h"

namespace nb = nanobind;

namespace gradwarden::python {
namespace {

constexpr std::uint32_t kKnownMajor = 1;
constexpr int kMostDimensions = 16;

// DLPack's table of functions, as its ABI fixes it. Only one of them is called here.
struct ExchangeTable {
  std::uint32_t major;
  std::uint32_t minor;
  const void* previous;
  void (*allocate)();
  void (*managed_from_object)();
  void (*managed_to_object)();
  // Fills `out` with what belongs to the tensor and lives as long. 0, or -1 with a Python error.
  int (*view_from_object)(void* object, nb::dlpack::dltensor* out);
};

struct Torch {
  const ExchangeTable* table = nullptr;
  PyTypeObject* tensor = nullptr;
  PyTypeObject* parameter = nullptr;
};

Torch& torch() {
  static Torch known;
  return known;
}

bool known_dtype(const nb::dlpack::dtype& dtype, DType& out) {
  if (dtype.lanes != 1) return false;
  if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Bfloat)) {
    out = DType::kBFloat16;
    return dtype.bits == 16;
  }
  if (dtype.code != static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float)) return false;
  out = dtype.bits == 64 ? DType::kFloat64 : dtype.bits == 32 ? DType::kFloat32 : DType::kFloat16;
  return dtype.bits == 64 || dtype.bits == 32 || dtype.bits == 16;
}

bool contiguous(const nb::dlpack::dltensor& tensor) {
  std::int64_t expected = 1;
  for (int d = tensor.ndim - 1; d >= 0; --d) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != expected) return false;
    expected *= tensor.shape[d];
  }
  return true;
}

// Contiguous but for the order of the dimensions.
bool dense(const nb::dlpack::dltensor& tensor) {
  if (tensor.strides == nullptr || contiguous(tensor)) return true;
  if (tensor.ndim > kMostDimensions) return false;
  struct Dimension {
    std::int64_t stride;
    std::int64_t size;
  };
  std::array<Dimension, kMostDimensions> by_stride{};
  std::size_t used = 0;
  for (int d = 0; d < tensor.ndim; ++d) {
    if (tensor.shape[d] != 1) by_stride[used++] = {tensor.strides[d], tensor.shape[d]};
  }
  const auto end = by_stride.begin() + static_cast<std::ptrdiff_t>(used);
  std::sort(by_stride.begin(), end,
            [](const Dimension& a, const Dimension& b) { return a.stride < b.stride; });
  std::int64_t expected = 1;
  for (auto d = by_stride.begin(); d != end; ++d) {
    if (d->stride != expected) return false;
    expected *= d->size;
  }
  return true;
}

}  // namespace

void use_torch(nb::handle tensor_type, nb::handle parameter_type) {
  const nb::object capsule = nb::getattr(tensor_type, "__dlpack_c_exchange_api__", nb::none());
  const void* pointer = PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api") != 0
                            ? PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api")
                            : nullptr;
  const auto* table = static_cast<const ExchangeTable*>(pointer);
  if (table == nullptr || table->major != kKnownMajor || table->view_from_object == nullptr) {
    throw Error("gradwarden: this torch does not hand out its tensors by DLPack " +
                std::to_string(kKnownMajor) + "; allowed: torch 2.13 or a later one that does");
  }
  // Held for as long as the process runs.
  torch() = {table, reinterpret_cast<PyTypeObject*>(tensor_type.inc_ref().ptr()),
             reinterpret_cast<PyTypeObject*>(parameter_type.inc_ref().ptr())};
}

bool view_of(PyObject* object, TensorView& out) {
  const Torch& known = torch();
  if (known.table == nullptr) return false;
  if (Py_TYPE(object) != known.tensor && Py_TYPE(object) != known.parameter) return false;
  nb::dlpack::dltensor tensor;
  if (known.table->view_from_object(object, &tensor) != 0) {
    PyErr_Clear();
    return false;
  }
  if (tensor.device.device_type != nb::device::cpu::value) return false;
  if (!known_dtype(tensor.dtype, out.dtype)) return false;
  std::uint64_t count = 1;
  for (int d = 0; d < tensor.ndim; ++d) count *= static_cast<std::uint64_t>(tensor.shape[d]);
  out.count = count;
  out.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  if (count == 0) return true;
  return tensor.data != nullptr && dense(tensor);
}

namespace {

template <kernels::DType kType>
double value_at(const void* data) {
  typename kernels::Element<kType>::Bits bits;
  std::memcpy(&bits, data, sizeof bits);
  const auto abs = kernels::abs_bits<kType>(bits);
  if (abs > kernels::Element<kType>::kInfinity) return std::numeric_limits<double>::quiet_NaN();
  const double magnitude = abs == kernels::Element<kType>::kInfinity
                               ? std::numeric_limits<double>::infinity()
                               : kernels::Element<kType>::magnitude(abs);
  return abs == bits ? magnitude : -magnitude;
}

}  // namespace

std::optional<double> scalar(nb::handle object) {
  TensorView view;
  if (!view_of(object.ptr(), view) || view.count != 1) return {};
  return kernels::with_dtype(static_cast<kernels::DType>(view.dtype),
                             [&]<kernels::DType kType>() { return value_at<kType>(view.data); });
}

}  // namespace gradwarden::python
