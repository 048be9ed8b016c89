// Tells whether this process was forked from the one that made an object.
#ifndef GRADWARDEN_CLIENT_REPORTER_FORK_GUARD_H_
#define GRADWARDEN_CLIENT_REPORTER_FORK_GUARD_H_

#include <cstdint>

namespace gradwarden::reporter {

// Rises by one in every child process. Reading it is no system call, unlike getpid().
std::uint32_t fork_generation() noexcept;

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_FORK_GUARD_H_
