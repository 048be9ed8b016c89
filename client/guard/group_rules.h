// Which policy each group of a binding has: the guard's value limit and the first group rule whose
// pattern matches the group's name.
#ifndef GRADWARDEN_CLIENT_GUARD_GROUP_RULES_H_
#define GRADWARDEN_CLIENT_GUARD_GROUP_RULES_H_

#include <string>
#include <vector>

#include "gradwarden/guard.h"
#include "kernels/numerics/group_policy.h"

namespace gradwarden::guard {

// By group. Throws Error if a rule matches no group: a threshold that never applies is a typing
// error. The same on every rank, since all know all groups.
std::vector<kernels::GroupPolicy> group_policies(const GuardOptions& options,
                                                 const std::vector<std::string>& groups);

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_GROUP_RULES_H_
