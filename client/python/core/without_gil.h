// Gives up the GIL for as long as it lives, where that is worth it: a few microseconds of work are
// over sooner than another thread of Python would give it back.
#ifndef GRADWARDEN_CLIENT_PYTHON_CORE_WITHOUT_GIL_H_
#define GRADWARDEN_CLIENT_PYTHON_CORE_WITHOUT_GIL_H_

#include <nanobind/nanobind.h>

#include <cstdint>
#include <optional>

namespace gradwarden::python {

class WithoutGil {
 public:
  // Made with the GIL held. `elements`: what is to be read.
  explicit WithoutGil(std::uint64_t elements) {
    if (elements >= kWorthIt) released_.emplace();
  }

  static constexpr std::uint64_t kWorthIt = std::uint64_t{1} << 17;  // about 20 microseconds

 private:
  std::optional<nanobind::gil_scoped_release> released_;
};

}  // namespace gradwarden::python

#endif  // GRADWARDEN_CLIENT_PYTHON_CORE_WITHOUT_GIL_H_
