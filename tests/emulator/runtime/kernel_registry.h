// Which functions cudaLaunchKernel knows, and how to take their arguments out of a void**.
//
// The kernels of kernels/cuda/kernels.h are known from the start; other programs register their own
// before they launch them. Safe from any thread; functions stay registered for the process's life.
#ifndef GRADWARDEN_TESTS_EMULATOR_RUNTIME_KERNEL_REGISTRY_H_
#define GRADWARDEN_TESTS_EMULATOR_RUNTIME_KERNEL_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace gradwarden::emulator {

struct RegisteredKernel {
  std::string name;
  // Copies the arguments, as a launch does, and gives what one thread runs.
  std::function<std::function<void()>(void** arguments)> bind;
};

void add_kernel(const void* function, RegisteredKernel kernel);
// Null if unknown.
std::shared_ptr<const RegisteredKernel> find_kernel(const void* function);

template <typename... Parameters>
void register_kernel(void (*function)(Parameters...), std::string name) {
  const auto bind = [function](void** arguments) -> std::function<void()> {
    const auto copy = [&]<std::size_t... I>(std::index_sequence<I...>) {
      (void)arguments;  // unused by a kernel without parameters
      return std::tuple<std::remove_cv_t<Parameters>...>(
          *static_cast<const std::remove_cv_t<Parameters>*>(arguments[I])...);
    };
    return [function, values = copy(std::index_sequence_for<Parameters...>{})] {
      std::apply(function, values);
    };
  };
  add_kernel(reinterpret_cast<const void*>(function), {std::move(name), bind});
}

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_RUNTIME_KERNEL_REGISTRY_H_
