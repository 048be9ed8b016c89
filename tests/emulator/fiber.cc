#include "tests/emulator/fiber.h"

#include <boost/context/fixedsize_stack.hpp>
#include <boost/context/preallocated.hpp>
#include <utility>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRADWARDEN_FIBER_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define GRADWARDEN_FIBER_ASAN 1
#endif
#ifdef GRADWARDEN_FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace gradwarden::emulator {
namespace {

constexpr std::size_t kStackBytes = 256 * 1024;  // what sanitizers' frames need; mapped on use

#ifdef GRADWARDEN_FIBER_ASAN
void start_switch(void** save, const void* bottom, std::size_t bytes) {
  __sanitizer_start_switch_fiber(save, bottom, bytes);
}
void finish_switch(void* saved, const void** bottom, std::size_t* bytes) {
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
}
#else
void start_switch(void**, const void*, std::size_t) {}
void finish_switch(void*, const void**, std::size_t*) {}
#endif

}  // namespace

Fiber::Fiber(std::function<void()> body) : body_(std::move(body)) {
  boost::context::fixedsize_stack allocator(kStackBytes);
  const boost::context::stack_context stack = allocator.allocate();
  stack_bytes_ = stack.size;
  stack_bottom_ = static_cast<const char*>(stack.sp) - stack.size;
  inside_ = boost::context::fiber(
      std::allocator_arg, boost::context::preallocated(stack.sp, stack.size, stack), allocator,
      [this](boost::context::fiber&& owner) { return enter(std::move(owner)); });
}

Fiber::~Fiber() {
  quit_ = true;
  resume();
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  start_switch(&fake_stack, stack_bottom_, stack_bytes_);
  inside_ = std::move(inside_).resume();
  finish_switch(fake_stack, nullptr, nullptr);
}

void Fiber::suspend() {
  start_switch(&fake_stack_, owner_bottom_, owner_bytes_);
  owner_ = std::move(owner_).resume();
  finish_switch(fake_stack_, &owner_bottom_, &owner_bytes_);
}

boost::context::fiber Fiber::enter(boost::context::fiber&& owner) {
  finish_switch(nullptr, &owner_bottom_, &owner_bytes_);
  owner_ = std::move(owner);
  while (!quit_) {
    body_();
    suspend();
  }
  start_switch(nullptr, owner_bottom_, owner_bytes_);  // null: this stack is not used again
  return std::move(owner_);
}

}  // namespace gradwarden::emulator
