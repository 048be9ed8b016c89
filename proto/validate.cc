#include "proto/validate.h"

#include <cmath>
#include <limits>
#include <sstream>

#include "proto/limits.h"

namespace gradwarden {
namespace {

constexpr std::uint64_t kMaxTime = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t kMaxVersionBytes = 64;

// Quotes a value for a one-line message: long ones are cut, control characters shown as '?'.
std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + (text.size() > kLongest ? "...\"" : "\"");
}

template <typename T>
std::string problem(std::string_view field, const T& value, std::string_view allowed) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  out << field << ": " << value << ", allowed is " << allowed;
  return out.str();
}

std::string up_to(std::uint64_t limit, std::string_view unit) {
  return "at most " + std::to_string(limit) + " " + std::string(unit);
}

// Length of the well-formed UTF-8 sequence at the start of `text`, 0 if there is none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
  if (lead == 0xed && byte(1) > 0x9f) return 0;  // surrogates
  if (lead == 0xf0 && byte(1) < 0x90) return 0;  // overlong
  if (lead == 0xf4 && byte(1) > 0x8f) return 0;  // beyond U+10FFFF
  return length;
}

bool printable(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) return false;
    const auto lead = static_cast<unsigned char>(text[i]);
    if (length == 1 && (lead < 0x20 || lead == 0x7f)) return false;
    // U+0080 to U+009F are control characters too.
    if (lead == 0xc2 && static_cast<unsigned char>(text[i + 1]) < 0xa0) return false;
    i += length;
  }
  return true;
}

enum class Empty { kAllowed, kRefused };

Problem check_text(std::string_view field, std::string_view text, std::size_t limit, Empty empty) {
  if (text.empty() && empty == Empty::kRefused) {
    return problem(field, "\"\"", "a name of 1 to " + std::to_string(limit) + " bytes");
  }
  if (text.size() > limit) {
    return problem(field, shown(text) + " of " + std::to_string(text.size()) + " bytes",
                   up_to(limit, "bytes"));
  }
  if (!printable(text)) {
    return problem(field, shown(text), "printable UTF-8 without control characters");
  }
  return {};
}

Problem check_path_name(std::string_view field, std::string_view name, std::size_t limit) {
  if (Problem found = check_text(field, name, limit, Empty::kRefused)) return found;
  if (name.find('/') != std::string_view::npos) {
    return problem(field, shown(name), "a name without '/'");
  }
  if (name == "." || name == "..") {
    return problem(field, shown(name), "a name other than \".\" and \"..\"");
  }
  return {};
}

Problem check_size(std::string_view field, int size, std::size_t expected, std::string_view what) {
  if (size == 0 || static_cast<std::size_t>(size) == expected) return {};
  return problem(field, std::to_string(size) + " entries",
                 "0 or " + std::to_string(expected) + " (one per " + std::string(what) + ")");
}

// How many rules a newer client may know that we do not.
constexpr int kUnknownRules = 32;

template <typename Values>
Problem check_no_negative(std::string_view field, const Values& values) {
  for (const double value : values) {
    if (value < 0) return problem(field, value, "0 or more, NaN or Inf");
  }
  return {};
}

Problem check_step(std::string_view field, std::uint64_t step) {
  if (step <= limits::kMaxStep) return {};
  return problem(field, step, "0 to 2^52");
}

Problem check_time(std::string_view field, std::uint64_t time) {
  if (time <= kMaxTime) return {};
  return problem(field, time, "nanoseconds since 1970, below 2^63");
}

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

Problem check_non_finite(const v1::Report& report, const AttemptShape& shape) {
  if (report.non_finite_size() > static_cast<int>(limits::kMaxNonFinitePerReport)) {
    return problem("non_finite", std::to_string(report.non_finite_size()) + " entries",
                   up_to(limits::kMaxNonFinitePerReport, "entries"));
  }
  for (const v1::NonFinite& entry : report.non_finite()) {
    if (Problem found = check_text("non_finite.tensor", entry.tensor(), limits::kMaxTensorNameBytes,
                                   Empty::kAllowed)) {
      return found;
    }
    if (entry.rank() >= shape.world_size) {
      return problem("non_finite.rank", entry.rank(),
                     "below world_size " + std::to_string(shape.world_size));
    }
    if (entry.group() != 0 && entry.group() >= shape.groups) {
      return problem("non_finite.group", entry.group(),
                     "below the " + std::to_string(shape.groups) + " groups of the Hello");
    }
  }
  return {};
}

Problem check_batch_ids(const v1::Report& report) {
  if (report.batch_ids_size() > static_cast<int>(limits::kMaxBatchIds)) {
    return problem("batch_ids", std::to_string(report.batch_ids_size()) + " entries",
                   up_to(limits::kMaxBatchIds, "entries"));
  }
  for (const std::string& id : report.batch_ids()) {
    if (Problem found = check_text("batch_ids", id, limits::kMaxBatchIdBytes, Empty::kAllowed)) {
      return found;
    }
  }
  return {};
}

Problem check_guard(const v1::GuardSettings& guard) {
  if (!(guard.max_norm() >= 0))
    return problem("guard.max_norm", guard.max_norm(), "0 (off) or more");
  if (!(guard.skip_above_rolling_mean() >= 0)) {
    return problem("guard.skip_above_rolling_mean", guard.skip_above_rolling_mean(),
                   "0 (off) or more");
  }
  return {};
}

}  // namespace

Problem check_run_name(std::string_view name) {
  return check_path_name("run", name, limits::kMaxRunNameBytes);
}

Problem check_hello(const v1::Hello& hello) {
  if (Problem found = check_run_name(hello.run())) return found;
  if (Problem found = check_path_name("attempt", hello.attempt(), limits::kMaxAttemptNameBytes)) {
    return found;
  }
  if (hello.world_size() == 0 || hello.world_size() > limits::kMaxWorldSize) {
    return problem("world_size", hello.world_size(),
                   "1 to " + std::to_string(limits::kMaxWorldSize));
  }
  if (hello.rank() >= hello.world_size()) {
    return problem("rank", hello.rank(), "below world_size " + std::to_string(hello.world_size()));
  }
  if (hello.groups_size() > static_cast<int>(limits::kMaxGroups)) {
    return problem("groups", std::to_string(hello.groups_size()) + " entries",
                   up_to(limits::kMaxGroups, "entries"));
  }
  for (const std::string& group : hello.groups()) {
    if (Problem found = check_text("groups", group, limits::kMaxGroupNameBytes, Empty::kRefused)) {
      return found;
    }
  }
  if (Problem found = check_time("started_unix_ns", hello.started_unix_ns())) return found;
  if (Problem found =
          check_text("host", hello.host(), limits::kMaxHostNameBytes, Empty::kAllowed)) {
    return found;
  }
  if (Problem found =
          check_text("client_version", hello.client_version(), kMaxVersionBytes, Empty::kAllowed)) {
    return found;
  }
  return check_guard(hello.guard());
}

Problem check_batch_size(const v1::ReportBatch& batch) {
  if (batch.reports_size() <= static_cast<int>(limits::kMaxReportsPerBatch)) return {};
  return problem("batch.reports", std::to_string(batch.reports_size()) + " reports",
                 up_to(limits::kMaxReportsPerBatch, "reports"));
}

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
  if (Problem found = check_non_finite(report, shape)) return found;
  return check_batch_ids(report);
}

Problem check_heartbeat(const v1::Heartbeat& heartbeat) {
  if (Problem found = check_step("step", heartbeat.step())) return found;
  if (Problem found = check_time("time_unix_ns", heartbeat.time_unix_ns())) return found;
  return check_step("dropped_reports", heartbeat.dropped_reports());
}

Problem check_goodbye(const v1::Goodbye& goodbye) {
  if (Problem found = check_step("last_step", goodbye.last_step())) return found;
  return check_step("dropped_reports", goodbye.dropped_reports());
}

Problem check_stream_history(const v1::StreamHistoryRequest& request) {
  if (Problem found = check_run_name(request.run())) return found;
  if (!request.attempt().empty()) {
    if (Problem found =
            check_path_name("attempt", request.attempt(), limits::kMaxAttemptNameBytes)) {
      return found;
    }
  }
  if (Problem found = check_step("first_step", request.first_step())) return found;
  if (Problem found = check_step("last_step", request.last_step())) return found;
  if (request.last_step() != 0 && request.last_step() < request.first_step()) {
    return problem("last_step", request.last_step(),
                   "0 (to the end) or at least first_step " + std::to_string(request.first_step()));
  }
  return {};
}

}  // namespace gradwarden
