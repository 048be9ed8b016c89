#include "client/guard/group_rules.h"

#include <fnmatch.h>

#include <algorithm>

#include "gradwarden/error.h"

namespace gradwarden::guard {
namespace {

bool matches(const GroupRule& rule, const std::string& group) {
  return fnmatch(rule.pattern.c_str(), group.c_str(), 0) == 0;
}

void require_use(const GroupRule& rule, const std::vector<std::string>& groups) {
  const auto used = [&](const std::string& group) { return matches(rule, group); };
  if (std::any_of(groups.begin(), groups.end(), used)) return;
  throw Error("bind: the pattern \"" + rule.pattern +
              "\" of a group rule matches no group; the groups are " +
              (groups.empty() ? std::string("none")
                              : "\"" + groups.front() + "\" and " +
                                    std::to_string(groups.size() - 1) + " others"));
}

}  // namespace

std::vector<kernels::GroupPolicy> group_policies(const GuardOptions& options,
                                                 const std::vector<std::string>& groups) {
  for (const GroupRule& rule : options.group_rules) require_use(rule, groups);
  std::vector<kernels::GroupPolicy> policies;
  for (const std::string& group : groups) {
    kernels::GroupPolicy policy{0, options.value_limit, options.adaptive_clip};
    for (const GroupRule& rule : options.group_rules) {
      if (!matches(rule, group)) continue;
      policy.max_norm = rule.max_norm;
      if (rule.value_limit > 0) policy.value_limit = rule.value_limit;
      if (rule.adaptive_clip) policy.adaptive_clip = *rule.adaptive_clip;
      break;
    }
    policies.push_back(policy);
  }
  return policies;
}

}  // namespace gradwarden::guard
