#include <cmath>
#include <utility>

#include "proto/rules.h"

namespace gradwarden {
namespace {

using namespace rules;  // NOLINT(google-build-using-namespace): the vocabulary of this file

// How many rules a newer client may know that we do not.
constexpr int kUnknownRules = 32;

bool non_finite_step(const v1::Report& report) {
  return report.nan_count() != 0 || report.inf_count() != 0 || !std::isfinite(report.grad_norm());
}

Problem check_coefficient(const v1::Report& report) {
  const double coefficient = report.clip_coefficient();
  if (!(coefficient >= 0 && coefficient <= 1)) {
    return problem("clip_coefficient", coefficient, "0 to 1");
  }
  // By a threshold of their own, groups may be clipped where the whole is not.
  if (report.decision() == v1::DECISION_CLIP && report.reason() == v1::REASON_MAX_NORM &&
      coefficient == 1) {
    return problem("clip_coefficient", "1 with DECISION_CLIP", "below 1");
  }
  const bool untouched =
      report.decision() == v1::DECISION_APPLY || report.decision() == v1::DECISION_SKIP;
  if (untouched && coefficient != 1) {
    return problem("clip_coefficient", coefficient,
                   "exactly 1 with " + v1::Decision_Name(report.decision()));
  }
  return {};
}

// An unknown reason comes from a newer client and is taken as unspecified; an unknown decision
// would change what the report says.
Problem check_decision(const v1::Report& report) {
  const v1::Decision decision = report.decision();
  const v1::Reason reason = report.reason();
  if (decision == v1::DECISION_UNSPECIFIED || !v1::Decision_IsValid(decision)) {
    return problem("decision", static_cast<int>(decision),
                   "apply (1), clip (2), reduce (3), skip (4)");
  }
  bool fits = true;
  switch (reason) {
    case v1::REASON_WITHIN_LIMITS:
      fits = decision == v1::DECISION_APPLY;
      break;
    case v1::REASON_MAX_NORM:
    case v1::REASON_GROUP_MAX_NORM:
    case v1::REASON_ADAPTIVE_CLIP:
      fits = decision == v1::DECISION_CLIP;
      break;
    case v1::REASON_NON_FINITE:
    case v1::REASON_LOSS_SCALE_OVERFLOW:
      if (!non_finite_step(report)) {
        return problem("reason", v1::Reason_Name(reason) + " with a finite grad_norm and no counts",
                       "this reason on a non-finite step only");
      }
      fits = decision == v1::DECISION_SKIP || decision == v1::DECISION_REDUCE;
      break;
    case v1::REASON_ABSOLUTE_LIMIT:
    case v1::REASON_ROLLING_MEAN:
    case v1::REASON_Z_SCORE:
    case v1::REASON_ROBUST_Z_SCORE:
      fits = decision == v1::DECISION_SKIP || decision == v1::DECISION_REDUCE;
      break;
    default:
      break;
  }
  if (fits) return {};
  return problem("decision", v1::Decision_Name(decision) + " with " + v1::Reason_Name(reason),
                 "a reason that leads to the decision");
}

Problem check_norms(const v1::Report& report) {
  if (report.grad_norm() < 0)
    return problem("grad_norm", report.grad_norm(), "0 or more, NaN or Inf");
  const bool counted = report.nan_count() != 0 || report.inf_count() != 0;
  if (counted && std::isfinite(report.grad_norm())) {
    return problem("grad_norm",
                   std::to_string(report.grad_norm()) + " with nan_count " +
                       std::to_string(report.nan_count()) + " and inf_count " +
                       std::to_string(report.inf_count()),
                   "NaN or Inf on a non-finite step");
  }
  if (!(report.rolling_mean() >= 0))
    return problem("rolling_mean", report.rolling_mean(), "0 or more");
  if (!(report.threshold() >= 0)) return problem("threshold", report.threshold(), "0 or more");
  if (!(report.clip_threshold() >= 0)) {
    return problem("clip_threshold", report.clip_threshold(), "0 or more");
  }
  const double factor = report.learning_rate_factor();
  if (!(factor >= 0 && factor <= 1)) return problem("learning_rate_factor", factor, "0 to 1");
  if (report.broken_rules_size() > v1::Reason_ARRAYSIZE + kUnknownRules) {
    return problem("broken_rules", std::to_string(report.broken_rules_size()) + " entries",
                   "one entry per rule");
  }
  if (!(report.max_abs() >= 0)) return problem("max_abs", report.max_abs(), "0 or more");
  if (report.has_gradient_noise_scale() &&
      !(report.gradient_noise_scale() >= 0 && std::isfinite(report.gradient_noise_scale()))) {
    return problem("gradient_noise_scale", report.gradient_noise_scale(), "0 or more and finite");
  }
  if (report.has_loss_scale() && report.loss_scale() < 0) {
    return problem("loss_scale", report.loss_scale(), "0 or more");
  }
  if (Problem found = check_no_negative("group_norms", report.group_norms())) return found;
  if (Problem found = check_no_negative("group_max_abs", report.group_max_abs())) return found;
  if (Problem found = check_no_negative("shard_norms", report.shard_norms())) return found;
  return check_no_negative("local_norms", report.local_norms());
}

Problem check_counts(const v1::Report& report) {
  const std::uint64_t elements = report.element_count();
  if (elements == 0) return {};
  const std::pair<std::string_view, std::uint64_t> counts[] = {{"nan_count", report.nan_count()},
                                                               {"inf_count", report.inf_count()},
                                                               {"zero_count", report.zero_count()}};
  for (const auto& [field, count] : counts) {
    if (count > elements) {
      return problem(field, count, "at most element_count " + std::to_string(elements));
    }
  }
  return {};
}

Problem check_sizes(const v1::Report& report, const AttemptShape& shape) {
  const std::pair<std::string_view, int> per_group[] = {
      {"group_norms", report.group_norms_size()},
      {"group_max_abs", report.group_max_abs_size()},
      {"group_nan_counts", report.group_nan_counts_size()},
      {"group_inf_counts", report.group_inf_counts_size()},
      {"group_zero_counts", report.group_zero_counts_size()}};
  for (const auto& [field, size] : per_group) {
    if (Problem found = check_size(field, size, shape.groups, "group of the Hello")) return found;
  }
  const std::pair<std::string_view, int> per_rank[] = {
      {"shard_norms", report.shard_norms_size()},
      {"local_norms", report.local_norms_size()},
      {"local_non_finite_counts", report.local_non_finite_counts_size()}};
  for (const auto& [field, size] : per_rank) {
    if (Problem found = check_size(field, size, shape.world_size, "rank")) return found;
  }
  return {};
}

}  // namespace

Problem check_report(const v1::Report& report, const AttemptShape& shape) {
  if (report.sequence() == 0 || report.sequence() > limits::kMaxStep) {
    return problem("sequence", report.sequence(), "1 to 2^52");
  }
  if (Problem found = check_step("step", report.step())) return found;
  if (Problem found = check_time("time_unix_ns", report.time_unix_ns())) return found;
  if (Problem found = check_norms(report)) return found;
  if (Problem found = check_decision(report)) return found;
  if (Problem found = check_coefficient(report)) return found;
  if (Problem found = check_counts(report)) return found;
  if (Problem found = check_sizes(report, shape)) return found;
  return check_findings(report, shape);
}

}  // namespace gradwarden
