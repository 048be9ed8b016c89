// The floating-point environment that the kernels compute in.
//
// A trainer may run with another rounding mode, or flush subnormals to zero (torch's
// set_flush_denormal does, on its own threads only), and the same gradient must still give the same
// bits. So each task switches to the default environment (round to nearest, subnormals kept) and
// puts back what it found, exception flags included.
#ifndef GRADWARDEN_KERNELS_CPU_FLOAT_ENVIRONMENT_H_
#define GRADWARDEN_KERNELS_CPU_FLOAT_ENVIRONMENT_H_

#include <cfenv>

namespace gradwarden::kernels {

class DefaultFloatEnvironment {
 public:
  DefaultFloatEnvironment() {
    std::fegetenv(&found_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnvironment() { std::fesetenv(&found_); }
  DefaultFloatEnvironment(const DefaultFloatEnvironment&) = delete;
  DefaultFloatEnvironment& operator=(const DefaultFloatEnvironment&) = delete;

 private:
  std::fenv_t found_;
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_FLOAT_ENVIRONMENT_H_
