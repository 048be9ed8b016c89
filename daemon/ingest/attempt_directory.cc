#include "daemon/ingest/attempt_directory.h"

#include <fnmatch.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "daemon/detect/kinds.h"
#include "daemon/ingest/teller.h"
#include "gradwarden/v1/query.pb.h"

namespace gradwarden::ingest {
namespace {

// An attempt without a stream stays in memory this long, so that a reconnect finds it there.
constexpr std::uint64_t kIdleNs = 30'000'000'000;
constexpr std::uint32_t kRememberedEvents = 2000;
constexpr std::uint64_t kLongestIdleNs = 120 * kIdleNs;

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
    if (!attempts->empty()) run.newest = attempts->back().row.ordinal;  // they come by start
  } else {
    if (static_cast<std::uint64_t>(context_.last_run_id.load()) >= context_.limits.max_runs) {
      context_.metrics.limit_acted(metrics::Limit::kRuns);
      return absl::ResourceExhaustedError("run: \"" + name + "\" would be one more than the " +
                                          std::to_string(context_.limits.max_runs) +
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
    if (absl::Status status = admit(hello); !status.ok()) return status;
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
    note_memory(*known->second);
  }
  const std::shared_ptr<Attempt>& attempt = known->second;
  attempt->leftover = attempt->leftover || hello.leftover();
  if (absl::Status status = check_agrees(*attempt, hello); !status.ok()) return status;
  attempt->metrics = context_.runs.acquire(hello.run(), context_.now_ns());
  if (attempt->metrics->shared()) context_.metrics.limit_acted(metrics::Limit::kMetricsRuns);
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
  if (absl::Status status = remember_batches(*attempt); !status.ok()) return status;
  if (!hello.leftover() || run.newest == 0) {
    if (absl::Status status = note_previous(*attempt, run.newest); !status.ok()) return status;
    run.newest = row.ordinal;
  }
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
  attempt->watched_since_ns = context_.now_ns();
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
    attempt->event_ids.clear();
    end_orphaned_events(attempt->run_id, attempt->row.id);
  }
  end_events_without_rule(*attempt);
  return attempt;
}

absl::Status AttemptDirectory::note_previous(Attempt& attempt, std::uint32_t previous) {
  if (previous == 0) return absl::OkStatus();
  const auto begin = attempts_.lower_bound({attempt.run_name, ""});
  for (auto at = begin; at != attempts_.end() && at->first.first == attempt.run_name; ++at) {
    if (at->second->row.ordinal != previous) continue;
    if (at->second->progress.step_reports != 0) {
      attempt.previous_attempt_end = at->second->progress.last_step;
    }
    return absl::OkStatus();
  }
  const absl::StatusOr<std::vector<store::Attempt>> all = reader_->attempts(attempt.run_id);
  if (!all.ok()) return absl::UnavailableError(all.status().message());
  for (const store::Attempt& other : *all) {
    if (other.row.ordinal != previous) continue;
    if (other.progress.step_reports != 0) attempt.previous_attempt_end = other.progress.last_step;
    end_orphaned_events(attempt.run_id, other.row.id);
  }
  return absl::OkStatus();
}

// What spiked in the attempts before, so that a batch that spikes again is known.
absl::Status AttemptDirectory::remember_batches(Attempt& attempt) {
  if (attempt.row.ordinal < 2) return absl::OkStatus();
  const auto events = reader_->events(attempt.run_id, 0, 0, kRememberedEvents);
  if (!events.ok()) return absl::UnavailableError(events.status().message());
  for (const std::string& data : *events) {
    v1::Event event;
    if (!event.ParseFromString(data)) continue;
    if (event.kind() != detect::kGradSpike && event.kind() != detect::kLossSpike) continue;
    for (const std::string& id : event.batch_ids()) {
      attempt.detector.remember({id, event.peak_step(), event.attempt()});
    }
  }
  return absl::OkStatus();
}

// A rule that is switched off since would never end its incident.
void AttemptDirectory::end_events_without_rule(Attempt& attempt) {
  std::set<std::uint64_t> keys;
  for (const detect::Incident& open : attempt.detector.open_incidents()) keys.insert(open.key);
  std::set<std::uint64_t> orphans;
  std::erase_if(attempt.event_ids, [&](const auto& known) {
    const bool orphan = keys.count(known.first) == 0;
    if (orphan) orphans.insert(known.second);
    return orphan;
  });
  if (!orphans.empty()) end_orphaned_events(attempt.run_id, attempt.row.id, orphans);
}

// The detector that would have ended them is gone. All of the attempt, or those of `only`.
void AttemptDirectory::end_orphaned_events(std::int64_t run_id, std::int64_t attempt_id,
                                           const std::set<std::uint64_t>& only) {
  const auto open = reader_->open_events(run_id, attempt_id, 1000);
  if (!open.ok()) return;
  auto item = std::make_unique<store::CommitItem>();
  item->attempt_id = attempt_id;
  std::vector<v1::Event> ended;
  for (const std::string& data : *open) {
    v1::Event event;
    if (!event.ParseFromString(data)) continue;
    if (!only.empty() && only.count(event.id()) == 0) continue;
    event.set_revision(event.revision() + 1);
    event.set_end_step(event.peak_step());
    item->events.push_back(
        {event.id(), event.revision(), run_id, attempt_id, false, event.SerializeAsString()});
    ended.push_back(std::move(event));
  }
  if (ended.empty()) return;
  const std::function<void()> tell = teller(context_, std::move(ended));
  context_.writer.submit(std::move(item), tell, tell);
}

bool AttemptDirectory::superseded(const Attempt& attempt) const {
  const auto run = runs_.find(attempt.run_name);
  return attempt.leftover || (run != runs_.end() && attempt.row.ordinal < run->second.newest);
}

std::vector<AttemptDirectory::Present> AttemptDirectory::present() const {
  std::vector<Present> all;
  for (const auto& [key, attempt] : attempts_) {
    if (!attempt->progress.finished) all.push_back({attempt, superseded(*attempt)});
  }
  return all;
}

absl::StatusOr<RankState*> AttemptDirectory::find_rank(Attempt& attempt, std::uint32_t rank) {
  const auto known = attempt.ranks.find(rank);
  if (known != attempt.ranks.end()) return &known->second;
  const absl::StatusOr<std::vector<store::Range>> stored =
      reader_->stored_sequences(attempt.row.id, rank);
  if (!stored.ok()) return absl::UnavailableError(stored.status().message());
  RankState& state = attempt.ranks[rank];
  state.seen = IntervalSet(*stored);
  note_memory(attempt);
  return &state;
}

void AttemptDirectory::note_memory(Attempt& attempt) {
  const std::size_t now = Attempt::memory_for(attempt.groups.size(), attempt.ranks.size());
  context_.admission.change_state(attempt.charged, now);
  memory_ += now - attempt.charged;
  attempt.charged = now;
}

bool AttemptDirectory::watched(const Attempt& attempt) const {
  return !attempt.progress.finished && attempt.progress.step_reports != 0 && !superseded(attempt) &&
         !attempt.stalled();
}

bool AttemptDirectory::idle(const Attempt& attempt) {
  return attempt.sessions == 0 && attempt.in_flight->load(std::memory_order_acquire) == 0;
}

void AttemptDirectory::drop(const Attempt& attempt) {
  memory_ -= attempt.charged;
  context_.admission.change_state(attempt.charged, 0);
}

void AttemptDirectory::forget_oldest_idle() {
  auto oldest = attempts_.end();
  for (auto at = attempts_.begin(); at != attempts_.end(); ++at) {
    if (!idle(*at->second)) continue;
    const bool older =
        oldest == attempts_.end() || at->second->idle_since_ns < oldest->second->idle_since_ns;
    if (older) oldest = at;
  }
  if (oldest == attempts_.end()) return;
  // Nobody will notice that it stalls.
  if (watched(*oldest->second)) context_.metrics.limit_acted(metrics::Limit::kMemoryBytes);
  drop(*oldest->second);
  attempts_.erase(oldest);
}

absl::Status AttemptDirectory::admit(const v1::Hello& hello) {
  const std::size_t memory =
      Attempt::memory_for(static_cast<std::size_t>(hello.groups_size()), /*ranks=*/1);
  if (memory_ + memory > context_.admission.idle_limit() / context_.worker_count) {
    forget_oldest_idle();
  }
  if (context_.admission.has_room_for_state(memory)) return absl::OkStatus();
  context_.metrics.limit_acted(metrics::Limit::kMemoryBytes);
  return absl::ResourceExhaustedError("run: \"" + hello.run() +
                                      "\" finds no room in ingest.memory_bytes beside the runs "
                                      "that are connected; try again later");
}

void AttemptDirectory::forget_idle() {
  const std::uint64_t now = context_.now_ns();
  std::erase_if(attempts_, [&](const auto& item) {
    const Attempt& attempt = *item.second;
    // One that went away without a word stays until that was noticed.
    const bool forgotten = idle(attempt) && attempt.idle_since_ns + kIdleNs < now &&
                           (!watched(attempt) || attempt.idle_since_ns + kLongestIdleNs < now);
    if (forgotten) drop(attempt);
    return forgotten;
  });
  // A run without attempts in memory is all in the store.
  std::erase_if(runs_, [&](const auto& run) {
    const auto at = attempts_.lower_bound({run.first, ""});
    return at == attempts_.end() || at->first.first != run.first;
  });
}

}  // namespace gradwarden::ingest
