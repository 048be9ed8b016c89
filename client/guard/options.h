// The guard's options: their allowed ranges and their translation into the policy of
// kernels/numerics.
#ifndef GRADWARDEN_CLIENT_GUARD_OPTIONS_H_
#define GRADWARDEN_CLIENT_GUARD_OPTIONS_H_

#include <string>

#include "gradwarden/guard.h"
#include "kernels/numerics/decision.h"

namespace gradwarden::guard {

// Throws Error naming the option, its value and what is allowed.
void check(const GuardOptions& options);

kernels::GuardPolicy policy_of(const GuardOptions& options);

// Everything that must be equal on all ranks, as a person reads it.
std::string settings_text(const GuardOptions& options);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_OPTIONS_H_
