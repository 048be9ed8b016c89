#include "proto/validate.h"

#include "proto/rules.h"

namespace gradwarden {
namespace {

using namespace rules;  // NOLINT(google-build-using-namespace): the vocabulary of this file

constexpr std::size_t kMaxVersionBytes = 64;

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
  if (Problem found = check_rank("rank", hello.rank(), hello.world_size())) return found;
  if (Problem found = check_entries("groups", hello.groups_size(), limits::kMaxGroups)) {
    return found;
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

Problem check_heartbeat(const v1::Heartbeat& heartbeat) {
  if (Problem found = check_step("step", heartbeat.step())) return found;
  if (Problem found = check_time("time_unix_ns", heartbeat.time_unix_ns())) return found;
  return check_step("dropped_reports", heartbeat.dropped_reports());
}

Problem check_goodbye(const v1::Goodbye& goodbye) {
  if (Problem found = check_step("last_step", goodbye.last_step())) return found;
  if (Problem found = check_checkpoints(goodbye.checkpoint_steps())) return found;
  return check_step("dropped_reports", goodbye.dropped_reports());
}

Problem check_get_flight(const v1::GetFlightRequest& request) {
  if (Problem found = check_run_name(request.run())) return found;
  if (!request.attempt().empty()) {
    if (Problem found =
            check_path_name("attempt", request.attempt(), limits::kMaxAttemptNameBytes)) {
      return found;
    }
  }
  if (Problem found = check_step("step", request.step())) return found;
  return check_rank("rank", request.rank(), limits::kMaxWorldSize);
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
