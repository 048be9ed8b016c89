// A parallel for over chunks, the only use of threads in kernels/.
//
// The kernels run a few times per training step, for milliseconds each: workers stay alive between
// calls, wait by spinning for some tens of microseconds and then sleep. Which thread runs which
// index differs from call to call; results of the kernels do not depend on it.
#ifndef GRADWARDEN_KERNELS_CPU_PARALLEL_FOR_H_
#define GRADWARDEN_KERNELS_CPU_PARALLEL_FOR_H_

#include <cstdint>

namespace gradwarden::kernels {

// Owns `threads - 1` workers that sleep between calls; the caller is the remaining one. One call at
// a time. With one thread nothing is created. A process forked from this one must not use the
// object (the workers are not in it).
class ParallelFor {
 public:
  explicit ParallelFor(unsigned threads);
  ~ParallelFor();
  ParallelFor(const ParallelFor&) = delete;
  ParallelFor& operator=(const ParallelFor&) = delete;

  // With the caller; what could be had of what was asked for.
  unsigned threads() const noexcept;

  using Body = void (*)(void* context, std::uint64_t index) noexcept;
  // Calls body(context, i) once for each i in [0, count), in any order and on any of the threads,
  // and returns when all calls have. Allocates nothing.
  void run(std::uint64_t count, Body body, void* context) noexcept;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace gradwarden::kernels

#endif  // GRADWARDEN_KERNELS_CPU_PARALLEL_FOR_H_
