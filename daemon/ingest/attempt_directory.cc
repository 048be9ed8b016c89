#include "daemon/ingest/attempt_directory.h"

#include <fnmatch.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "gradwarden/v1/query.pb.h"

namespace gradwarden::ingest {
namespace {

// An attempt without a stream stays in memory this long, so that a reconnect finds it there.
constexpr std::uint64_t kIdleNs = 30'000'000'000;

const detect::DetectorOptions& detector_options(const IngestOptions& options,
                                                const std::string& run) {
  for (const auto& [pattern, overridden] : options.detector_overrides) {
    if (fnmatch(pattern.c_str(), run.c_str(), 0) == 0) return overridden;
  }
  return options.detector;
}

absl::Status check_agrees(const Attempt& attempt, const v1::Hello& hello) {
  const std::string which = "attempt \"" + hello.attempt() + "\" of run \"" + hello.run() + "\"";
  if (hello.world_size() != attempt.world_size) {
    return absl::InvalidArgumentError(
        "world_size: " + std::to_string(hello.world_size()) + ", but " + which + " has " +
        std::to_string(attempt.world_size) + "; a restart with another size is a new attempt");
  }
  if (!std::equal(attempt.groups.begin(), attempt.groups.end(), hello.groups().begin(),
                  hello.groups().end())) {
    return absl::InvalidArgumentError("groups: " + std::to_string(hello.groups_size()) +
                                      " names that differ from the " +
                                      std::to_string(attempt.groups.size()) + " of " + which +
                                      "; allowed are the same names in the same order");
  }
  return absl::OkStatus();
}

}  // namespace

AttemptDirectory::AttemptDirectory(IngestContext& context,
                                   std::unique_ptr<store::StoreReader> reader)
    : context_(context), reader_(std::move(reader)) {}

absl::StatusOr<AttemptDirectory::Run*> AttemptDirectory::find_run(const std::string& name,
                                                                  store::CommitItem& item) {
  const auto known = runs_.find(name);
  if (known != runs_.end()) return &known->second;
  const absl::StatusOr<std::optional<store::RunRow>> stored = reader_->run(name);
  if (!stored.ok()) return absl::UnavailableError(stored.status().message());
  Run run;
  if (*stored) {
    const absl::StatusOr<std::vector<store::Attempt>> attempts = reader_->attempts((*stored)->id);
    if (!attempts.ok()) return absl::UnavailableError(attempts.status().message());
    run.id = (*stored)->id;
    run.attempts = static_cast<std::uint32_t>(attempts->size());
  } else {
    if (static_cast<std::uint64_t>(context_.last_run_id.load()) >= context_.options.max_runs) {
      context_.metrics.limit_acted(metrics::Limit::kRuns);
      return absl::ResourceExhaustedError("run: \"" + name + "\" would be one more than the " +
                                          std::to_string(context_.options.max_runs) +
                                          " runs that ingest.max_runs allows");
    }
    run.id = context_.last_run_id.fetch_add(1) + 1;
    item.new_run = {run.id, name, context_.now_ns()};
  }
  return &runs_.emplace(name, run).first->second;
}

absl::StatusOr<std::shared_ptr<Attempt>> AttemptDirectory::find(const v1::Hello& hello,
                                                                store::CommitItem& item) {
  const std::pair<std::string, std::string> key(hello.run(), hello.attempt());
  auto known = attempts_.find(key);
  if (known == attempts_.end()) {
    const absl::StatusOr<Run*> run = find_run(hello.run(), item);
    if (!run.ok()) return run.status();
    const absl::StatusOr<std::optional<store::Attempt>> stored =
        reader_->attempt((*run)->id, hello.attempt());
    absl::StatusOr<std::shared_ptr<Attempt>> attempt =
        !stored.ok() ? absl::UnavailableError(stored.status().message())
        : *stored    ? load(hello, **stored)
                     : begin(hello, **run, item);
    if (!attempt.ok()) {
      // A run that was to begin with this attempt is not there after all.
      if (item.new_run) runs_.erase(hello.run());
      return attempt;
    }
    known = attempts_.emplace(key, *std::move(attempt)).first;
  }
  const std::shared_ptr<Attempt>& attempt = known->second;
  if (absl::Status status = check_agrees(*attempt, hello); !status.ok()) return status;
  attempt->metrics = context_.runs.acquire(hello.run(), context_.now_ns());
  if (attempt->metrics == nullptr) context_.metrics.limit_acted(metrics::Limit::kMetricsRuns);
  return attempt;
}

absl::StatusOr<std::shared_ptr<Attempt>> AttemptDirectory::begin(const v1::Hello& hello, Run& run,
                                                                 store::CommitItem& item) {
  store::AttemptRow row;
  row.id = context_.last_attempt_id.fetch_add(1) + 1;
  row.run_id = run.id;
  row.name = hello.attempt();
  row.ordinal = ++run.attempts;
  row.started_ns = hello.started_unix_ns() != 0 ? hello.started_unix_ns() : context_.now_ns();
  row.hello = hello.SerializeAsString();
  item.new_attempt = row;
  auto attempt = std::make_shared<Attempt>(hello.run(), run.id, row,
                                           detector_options(context_.options, hello.run()));
  attempt->world_size = hello.world_size();
  attempt->groups.assign(hello.groups().begin(), hello.groups().end());
  spdlog::info("run \"{}\": attempt \"{}\" ({}) begins with {} ranks and {} groups", hello.run(),
               hello.attempt(), row.ordinal, hello.world_size(), hello.groups_size());
  return attempt;
}

absl::StatusOr<std::shared_ptr<Attempt>> AttemptDirectory::load(const v1::Hello& hello,
                                                                const store::Attempt& stored) {
  v1::Hello first;
  if (!first.ParseFromString(stored.row.hello)) {
    return absl::InternalError("the stored hello of attempt \"" + stored.row.name +
                               "\" is damaged");
  }
  auto attempt = std::make_shared<Attempt>(hello.run(), stored.row.run_id, stored.row,
                                           detector_options(context_.options, hello.run()));
  attempt->world_size = first.world_size();
  attempt->groups.assign(first.groups().begin(), first.groups().end());
  attempt->progress = stored.progress;
  attempt->progress.state.clear();
  const absl::StatusOr<std::vector<std::uint64_t>> checkpoints =
      reader_->checkpoints(stored.row.id, 1);
  if (!checkpoints.ok()) return absl::UnavailableError(checkpoints.status().message());
  if (!checkpoints->empty()) attempt->last_checkpoint = checkpoints->back();
  const absl::Status restored = attempt->restore_state(stored.progress.state);
  if (!restored.ok()) {
    spdlog::warn("run \"{}\" attempt \"{}\": detection starts afresh: {}", hello.run(),
                 stored.row.name, restored.ToString());
    end_orphaned_events(*attempt);
  }
  return attempt;
}

// The detector that would have ended them is gone.
void AttemptDirectory::end_orphaned_events(Attempt& attempt) {
  attempt.event_ids.clear();
  const auto open = reader_->open_events(attempt.run_id, attempt.row.id, 1000);
  if (!open.ok()) return;
  auto item = std::make_unique<store::CommitItem>();
  item->attempt_id = attempt.row.id;
  for (const std::string& data : *open) {
    v1::Event event;
    if (!event.ParseFromString(data)) continue;
    event.set_revision(event.revision() + 1);
    event.set_end_step(event.peak_step());
    item->events.push_back({event.id(), event.revision(), attempt.run_id, attempt.row.id, false,
                            event.SerializeAsString()});
  }
  context_.writer.submit(std::move(item), nullptr);
}

absl::StatusOr<RankState*> AttemptDirectory::find_rank(Attempt& attempt, std::uint32_t rank) {
  const auto known = attempt.ranks.find(rank);
  if (known != attempt.ranks.end()) return &known->second;
  const absl::StatusOr<std::vector<store::Range>> stored =
      reader_->stored_sequences(attempt.row.id, rank);
  if (!stored.ok()) return absl::UnavailableError(stored.status().message());
  RankState& state = attempt.ranks[rank];
  state.seen = IntervalSet(*stored);
  return &state;
}

void AttemptDirectory::forget_idle() {
  const std::uint64_t now = context_.now_ns();
  std::erase_if(attempts_, [&](const auto& item) {
    const Attempt& attempt = *item.second;
    return attempt.sessions == 0 && attempt.idle_since_ns + kIdleNs < now &&
           attempt.in_flight->load(std::memory_order_acquire) == 0;
  });
  // A run without attempts in memory is all in the store.
  std::erase_if(runs_, [&](const auto& run) {
    const auto at = attempts_.lower_bound({run.first, ""});
    return at == attempts_.end() || at->first.first != run.first;
  });
}

}  // namespace gradwarden::ingest
