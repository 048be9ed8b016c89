// Counts the system calls that the calling thread makes in a stretch of code, for tests. The kernel
// stops them before they happen (syscall user dispatch, Linux 5.11), so whoever counts ends the
// stretch with the first one: it is seen, and made a moment later.
//
// One thread at a time. Calls that the kernel answers in user memory (the clock) are none.
#ifndef GRADWARDEN_TESTS_UNIT_SYSTEM_CALLS_H_
#define GRADWARDEN_TESTS_UNIT_SYSTEM_CALLS_H_

#include <signal.h>
#include <sys/prctl.h>
#include <ucontext.h>
#include <unistd.h>

#include <functional>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

namespace gradwarden::test {

class SystemCalls {
 public:
  // False where the kernel has no such thing or does not let us, and under sanitizers, which make
  // calls of their own.
  static bool can_be_seen() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return false;
#else
    return set(true) && set(false);
#endif
  }

  // The number of the first system call in `code`; -1 if it makes none.
  static long first_in(const std::function<void()>& code) {
    struct sigaction action {};
    struct sigaction before {};
    action.sa_sigaction = &seen;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, &before);
    first_ = -1;
    set(true);
    selector_ = kBlock;
    code();
    selector_ = kAllow;
    set(false);
    sigaction(SIGSYS, &before, nullptr);
    return first_;
  }

 private:
  static constexpr char kAllow = 0;
  static constexpr char kBlock = 1;

  static bool set(bool on) {
    return prctl(PR_SET_SYSCALL_USER_DISPATCH, on ? 1 : 0, 0, 0, on ? &selector_ : nullptr) == 0;
  }
  // The call was not made: it is, after this, with nothing stopped any more.
  static void seen(int, siginfo_t* info, void* context) {
    selector_ = kAllow;
    if (first_ < 0) first_ = info->si_syscall;
#ifdef __x86_64__
    constexpr int kInstructionBytes = 2;  // syscall
    auto* machine = static_cast<ucontext_t*>(context);
    machine->uc_mcontext.gregs[REG_RIP] -= kInstructionBytes;
    machine->uc_mcontext.gregs[REG_RAX] = info->si_syscall;
#else
    (void)context;
#endif
  }

  static inline volatile char selector_ = kAllow;
  static inline volatile long first_ = -1;
};

}  // namespace gradwarden::test

#endif  // GRADWARDEN_TESTS_UNIT_SYSTEM_CALLS_H_
