#include "daemon/cli/history_source.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "gradwarden/v1/ingest.pb.h"
#include "proto/history_file.h"

namespace gradwarden::cli {
namespace {

void begin_attempt(const v1::Hello& hello, v1::GetRunResponse& contents) {
  v1::RunSummary& run = *contents.mutable_summary();
  v1::AttemptSummary& attempt = *contents.add_attempts();
  attempt.set_attempt(hello.attempt());
  attempt.set_ordinal(static_cast<std::uint32_t>(contents.attempts_size()));
  attempt.set_started_unix_ns(hello.started_unix_ns());
  attempt.set_world_size(hello.world_size());
  *attempt.mutable_groups() = hello.groups();
  *attempt.mutable_guard() = hello.guard();
  attempt.set_host(hello.host());
  run.set_run(hello.run());
  run.set_attempts(attempt.ordinal());
  run.set_latest_attempt(hello.attempt());
  run.set_finished(false);
}

void add_checkpoints(const google::protobuf::RepeatedField<std::uint64_t>& steps,
                     v1::RunSummary& run, v1::AttemptSummary& attempt) {
  for (const std::uint64_t step : steps) {
    attempt.add_checkpoint_steps(step);
    const bool later = step > run.last_checkpoint_step() || attempt.checkpoint_steps_size() == 1;
    if (later) run.set_last_checkpoint_step(step);
  }
}

void add_report(const v1::Report& report, v1::RunSummary& run, v1::AttemptSummary& attempt) {
  if (attempt.reports() == 0) attempt.set_first_step(report.step());
  attempt.set_reports(attempt.reports() + 1);
  attempt.set_first_step(std::min(attempt.first_step(), report.step()));
  attempt.set_last_step(std::max(attempt.last_step(), report.step()));
  attempt.set_last_report_unix_ns(report.time_unix_ns());
  add_checkpoints(report.checkpoint_steps(), run, attempt);
  run.set_reports(run.reports() + 1);
  run.set_last_step(report.step());
  run.set_last_report_unix_ns(report.time_unix_ns());
  run.set_grad_norm(report.grad_norm());
  if (report.has_loss()) run.set_loss(report.loss());
  if (report.shadow()) return;
  if (report.decision() == v1::DECISION_CLIP) run.set_clipped_steps(run.clipped_steps() + 1);
  if (report.decision() == v1::DECISION_SKIP) run.set_skipped_steps(run.skipped_steps() + 1);
}

// A file that begins with batches names no attempt: they stand under an empty one.
v1::AttemptSummary& current_attempt(v1::GetRunResponse& contents) {
  if (contents.attempts().empty()) begin_attempt({}, contents);
  return *contents.mutable_attempts(contents.attempts_size() - 1);
}

void note(const v1::IngestRequest& request, v1::GetRunResponse& contents) {
  if (request.has_hello()) begin_attempt(request.hello(), contents);
  for (const v1::Report& report : request.batch().reports()) {
    add_report(report, *contents.mutable_summary(), current_attempt(contents));
  }
  if (request.has_goodbye()) {
    v1::AttemptSummary& attempt = current_attempt(contents);
    attempt.set_finished(true);
    add_checkpoints(request.goodbye().checkpoint_steps(), *contents.mutable_summary(), attempt);
    attempt.set_dropped_reports(request.goodbye().dropped_reports());
    contents.mutable_summary()->set_finished(true);
  }
}

void say_damage(const std::string& path, const HistoryFileReader& reader) {
  if (reader.damaged_frames() + reader.unread_bytes() == 0) return;
  std::fprintf(stderr,
               "gradwarden: %s: %llu damaged frames left out, %llu bytes at the end unreadable\n",
               path.c_str(), static_cast<unsigned long long>(reader.damaged_frames()),
               static_cast<unsigned long long>(reader.unread_bytes()));
}

}  // namespace

bool is_history_file(const std::string& name) {
  if (name.find('/') != std::string::npos) return true;
  std::error_code error;
  if (!std::filesystem::is_regular_file(name, error)) return false;
  HistoryFileReader reader;
  std::string ignored;
  return reader.open(name, &ignored);
}

bool read_history_file(const std::string& path, const std::string& attempt,
                       const std::function<bool(const v1::HistoryChunk&)>& take,
                       v1::GetRunResponse* contents) {
  HistoryFileReader reader;
  std::string error;
  if (!reader.open(path, &error)) {
    std::fprintf(stderr, "gradwarden: %s\n", error.c_str());
    return false;
  }
  v1::IngestRequest request;
  bool wanted = true;
  bool found = attempt.empty();
  std::uint32_t rank = 0;
  while (wanted && reader.next(request)) {
    note(request, *contents);
    if (request.has_hello()) rank = request.hello().rank();
    const std::string& current = contents->summary().latest_attempt();
    if (!attempt.empty() && attempt != current) continue;
    found = true;
    if (request.batch().reports().empty()) continue;
    v1::HistoryChunk chunk;
    chunk.set_attempt(current);
    chunk.set_rank(rank);
    chunk.mutable_reports()->Swap(request.mutable_batch()->mutable_reports());
    wanted = take(chunk);
  }
  say_damage(path, reader);
  if (!found) {
    std::fprintf(stderr, "gradwarden: %s has no attempt \"%s\"; `gradwarden show %s` lists them\n",
                 path.c_str(), attempt.c_str(), path.c_str());
  }
  return found;
}

}  // namespace gradwarden::cli
