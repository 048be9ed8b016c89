// A coroutine on a stack of its own (Boost.Context) whose switches AddressSanitizer is told about.
//
// Resumed by its owner, suspended by itself; used by one thread only. It runs `body` again and
// again until destroyed: body returns when a kernel's thread has ended, and the next resume starts
// it anew, which saves a stack per thread and launch.
#ifndef GRADWARDEN_TESTS_EMULATOR_FIBER_H_
#define GRADWARDEN_TESTS_EMULATOR_FIBER_H_

#include <boost/context/fiber.hpp>
#include <cstddef>
#include <functional>

namespace gradwarden::emulator {

class Fiber {
 public:
  explicit Fiber(std::function<void()> body);
  // body must not be suspended halfway: its objects would not be destroyed.
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void resume();   // from outside, until the fiber suspends
  void suspend();  // from inside

 private:
  boost::context::fiber enter(boost::context::fiber&& owner);

  std::function<void()> body_;
  bool quit_ = false;
  boost::context::fiber inside_;  // where the fiber stands, while it does not run
  boost::context::fiber owner_;   // where its owner stands, while it does
  const void* stack_bottom_ = nullptr;
  std::size_t stack_bytes_ = 0;
  const void* owner_bottom_ = nullptr;
  std::size_t owner_bytes_ = 0;
  void* fake_stack_ = nullptr;  // AddressSanitizer's, of the side that does not run
};

}  // namespace gradwarden::emulator

#endif  // GRADWARDEN_TESTS_EMULATOR_FIBER_H_
