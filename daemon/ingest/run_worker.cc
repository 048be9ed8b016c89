#include "daemon/ingest/run_worker.h"

#include <fnmatch.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "daemon/ingest/event_builder.h"
#include "proto/limits.h"

namespace gradwarden::ingest {
namespace {

constexpr std::chrono::seconds kSweepInterval{5};
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

absl::Status invalid(Problem problem) { return absl::InvalidArgumentError(*problem); }

}  // namespace

RunWorker::RunWorker(IngestContext& context, std::unique_ptr<store::StoreReader> reader)
    : context_(context),
      reader_(std::move(reader)),
      processor_(context),
      thread_([this] { run(); }) {}

RunWorker::~RunWorker() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void RunWorker::submit(Inbound inbound) {
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    wake = queue_.empty();
    queue_.push_back(std::move(inbound));
  }
  if (wake) wake_.notify_one();
}

void RunWorker::run() {
  std::vector<Inbound> taken;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait_for(lock, kSweepInterval, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty() && stopping_) return;
      taken.swap(queue_);
    }
    for (Inbound& inbound : taken) handle(inbound);
    if (taken.empty()) forget_idle();
    taken.clear();
  }
}

void RunWorker::handle(Inbound& inbound) {
  switch (inbound.kind) {
    case Inbound::Kind::kRequest:
      handle_request(inbound);
      return;
    case Inbound::Kind::kBatch: {
      const std::size_t size = inbound.bytes.size();
      handle_batch(inbound.session, std::move(inbound.bytes), size);
      return;
    }
    case Inbound::Kind::kClosed:
      handle_closed(*inbound.session);
      return;
  }
}

void RunWorker::handle_request(Inbound& inbound) {
  const std::size_t bytes = inbound.bytes.size();
  Session& session = *inbound.session;
  v1::IngestRequest request;
  if (!request.ParseFromString(inbound.bytes)) {
    refuse(session, absl::InvalidArgumentError("message: not a gradwarden.v1.IngestRequest"),
           bytes);
    return;
  }
  const bool greeted = session.attempt != nullptr;
  if (!greeted && !request.has_hello()) {
    refuse(session, absl::FailedPreconditionError("the first message of a stream is a hello"),
           bytes);
    return;
  }
  switch (request.message_case()) {
    case v1::IngestRequest::kHello:
      if (greeted) {
        refuse(session, absl::FailedPreconditionError("hello: allowed once per stream"), bytes);
      } else {
        handle_hello(inbound.session, request.hello(), bytes);
      }
      return;
    case v1::IngestRequest::kBatch: {
      // Only a client that encodes in an unusual way gets here: see IngestStream.
      handle_batch(inbound.session, request.batch().SerializeAsString(), bytes);
      return;
    }
    case v1::IngestRequest::kHeartbeat:
      handle_heartbeat(session, request.heartbeat(), bytes);
      return;
    case v1::IngestRequest::kGoodbye:
      handle_goodbye(inbound.session, request.goodbye(), bytes);
      return;
    case v1::IngestRequest::MESSAGE_NOT_SET:
      session.answer({}, bytes);  // of a newer client: nothing to do
      return;
  }
}

void RunWorker::handle_batch(const std::shared_ptr<Session>& keep, std::string bytes,
                             std::size_t size) {
  Session& session = *keep;
  if (session.attempt == nullptr) {
    refuse(session, absl::FailedPreconditionError("the first message of a stream is a hello"),
           size);
    return;
  }
  if (!batch_.ParseFromString(bytes)) {
    refuse(session, absl::InvalidArgumentError("batch: not a gradwarden.v1.ReportBatch"), size);
    return;
  }
  if (Problem problem = check_batch_size(batch_)) {
    refuse(session, invalid(problem), size);
    return;
  }
  Outcome outcome = processor_.process(*session.attempt, session.rank, batch_, std::move(bytes));
  v1::IngestResponse response;
  response.mutable_acknowledgement()->Swap(&outcome.acknowledgement);
  commit(keep, std::move(outcome), std::move(response), size);
}

void RunWorker::handle_hello(const std::shared_ptr<Session>& session, const v1::Hello& hello,
                             std::size_t bytes) {
  if (Problem problem = check_hello(hello)) {
    refuse(*session, invalid(problem), bytes);
    return;
  }
  if (context_.writer.failing()) {
    refuse(*session, absl::UnavailableError("the daemon cannot store at present; try again later"),
           bytes);
    return;
  }
  Outcome outcome;
  const absl::StatusOr<std::shared_ptr<Attempt>> attempt = find_attempt(hello, *outcome.item);
  if (!attempt.ok()) {
    refuse(*session, attempt.status(), bytes);
    return;
  }
  const absl::StatusOr<RankState*> rank = find_rank(**attempt, hello.rank());
  if (!rank.ok()) {
    refuse(*session, rank.status(), bytes);
    return;
  }
  session->attempt = *attempt;
  session->rank = hello.rank();
  ++(*attempt)->sessions;
  (*rank)->last_seen_ns = context_.now_ns();
  v1::IngestResponse response;
  v1::Welcome& welcome = *response.mutable_welcome();
  welcome.set_daemon_version(context_.version);
  welcome.set_max_batch_reports(limits::kMaxReportsPerBatch);
  welcome.set_max_message_bytes(limits::kMaxMessageBytes);
  // Sent when everything before it is committed, so what is on the way counts as stored.
  for (const auto& [first, last] : (*rank)->seen.ranges()) {
    v1::SequenceRange* range = welcome.add_stored();
    range->set_first(first);
    range->set_last(last);
  }
  if (!outcome.item->new_attempt) outcome.item.reset();
  commit(session, std::move(outcome), std::move(response), bytes);
}

absl::StatusOr<RunWorker::Run*> RunWorker::find_run(const std::string& name,
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

absl::StatusOr<std::shared_ptr<Attempt>> RunWorker::find_attempt(const v1::Hello& hello,
                                                                 store::CommitItem& item) {
  const auto known = attempts_.find({hello.run(), hello.attempt()});
  if (known != attempts_.end()) {
    if (absl::Status status = check_agrees(*known->second, hello); !status.ok()) return status;
    known->second->metrics = context_.runs.acquire(hello.run(), context_.now_ns());
    return known->second;
  }
  const absl::StatusOr<Run*> run = find_run(hello.run(), item);
  if (!run.ok()) return run.status();
  const absl::StatusOr<std::optional<store::Attempt>> stored =
      reader_->attempt((*run)->id, hello.attempt());
  if (!stored.ok()) return absl::UnavailableError(stored.status().message());

  store::AttemptRow row;
  if (*stored) {
    row = (*stored)->row;
  } else {
    row.id = context_.last_attempt_id.fetch_add(1) + 1;
    row.run_id = (*run)->id;
    row.name = hello.attempt();
    row.ordinal = (*run)->attempts + 1;
    row.started_ns = hello.started_unix_ns() != 0 ? hello.started_unix_ns() : context_.now_ns();
    row.hello = hello.SerializeAsString();
  }
  auto attempt = std::make_shared<Attempt>(hello.run(), (*run)->id, row,
                                           detector_options(context_.options, hello.run()));
  attempt->world_size = hello.world_size();
  attempt->groups.assign(hello.groups().begin(), hello.groups().end());
  if (*stored) {
    if (absl::Status status = load_stored(*attempt, **stored); !status.ok()) return status;
    if (absl::Status status = check_agrees(*attempt, hello); !status.ok()) return status;
  } else {
    ++(*run)->attempts;
    item.new_attempt = row;
    spdlog::info("run \"{}\": attempt \"{}\" ({}) begins with {} ranks and {} groups", hello.run(),
                 hello.attempt(), row.ordinal, hello.world_size(), hello.groups_size());
  }
  attempt->metrics = context_.runs.acquire(hello.run(), context_.now_ns());
  if (attempt->metrics == nullptr) context_.metrics.limit_acted(metrics::Limit::kMetricsRuns);
  attempts_[{hello.run(), hello.attempt()}] = attempt;
  return attempt;
}

absl::Status RunWorker::load_stored(Attempt& attempt, const store::Attempt& stored) {
  v1::Hello hello;
  if (!hello.ParseFromString(stored.row.hello)) {
    return absl::InternalError("the stored hello of attempt \"" + stored.row.name +
                               "\" is damaged");
  }
  attempt.world_size = hello.world_size();
  attempt.groups.assign(hello.groups().begin(), hello.groups().end());
  attempt.progress = stored.progress;
  attempt.progress.state.clear();
  const absl::Status restored = attempt.restore_state(stored.progress.state);
  if (!restored.ok()) {
    spdlog::warn("run \"{}\" attempt \"{}\": detection starts afresh: {}", attempt.run_name,
                 stored.row.name, restored.ToString());
    end_orphaned_events(attempt);
  }
  return absl::OkStatus();
}

// The detector that would have ended them is gone.
void RunWorker::end_orphaned_events(Attempt& attempt) {
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

absl::StatusOr<RankState*> RunWorker::find_rank(Attempt& attempt, std::uint32_t rank) {
  const auto known = attempt.ranks.find(rank);
  if (known != attempt.ranks.end()) return &known->second;
  const absl::StatusOr<std::vector<store::Range>> stored =
      reader_->stored_sequences(attempt.row.id, rank);
  if (!stored.ok()) return absl::UnavailableError(stored.status().message());
  RankState& state = attempt.ranks[rank];
  state.seen = IntervalSet(*stored);
  return &state;
}

void RunWorker::handle_heartbeat(Session& session, const v1::Heartbeat& heartbeat,
                                 std::size_t bytes) {
  if (Problem problem = check_heartbeat(heartbeat)) {
    refuse(session, invalid(problem), bytes);
    return;
  }
  Attempt& attempt = *session.attempt;
  RankState& rank = attempt.ranks[session.rank];
  rank.last_seen_ns = context_.now_ns();
  rank.step = std::max(rank.step, heartbeat.step());
  rank.phase = heartbeat.phase();
  attempt.note_backlog(rank, heartbeat.dropped_reports(), heartbeat.pending_reports());
  if (attempt.metrics != nullptr) {
    attempt.metrics->update([&](metrics::RunValues& values) {
      values.dropped = attempt.dropped;
      values.pending = attempt.pending;
    });
  }
  session.answer({}, bytes);
}

void RunWorker::handle_goodbye(const std::shared_ptr<Session>& session, const v1::Goodbye& goodbye,
                               std::size_t bytes) {
  if (Problem problem = check_goodbye(goodbye)) {
    refuse(*session, invalid(problem), bytes);
    return;
  }
  Attempt& attempt = *session->attempt;
  RankState& rank = attempt.ranks[session->rank];
  rank.phase = v1::PHASE_FINISHED;
  attempt.note_backlog(rank, goodbye.dropped_reports(), 0);
  // Rank 0 speaks for the attempt; the others only for themselves.
  Outcome outcome = session->rank == 0 ? processor_.finish(attempt) : processor_.touch(attempt);
  if (session->rank == 0) {
    spdlog::info("run \"{}\": attempt \"{}\" is finished at step {}", attempt.run_name,
                 attempt.row.name, goodbye.last_step());
  }
  v1::IngestResponse response;
  response.set_goodbye(true);
  commit(session, std::move(outcome), std::move(response), bytes);
}

void RunWorker::handle_closed(Session& session) {
  if (session.attempt == nullptr) return;
  --session.attempt->sessions;
  session.attempt->idle_since_ns = context_.now_ns();
  session.attempt.reset();
}

void RunWorker::commit(const std::shared_ptr<Session>& session, Outcome outcome,
                       v1::IngestResponse response, std::size_t bytes) {
  auto in_flight = session->attempt->in_flight;
  in_flight->fetch_add(1, std::memory_order_relaxed);
  auto done = [this, session, in_flight, bytes, stored = outcome.stored,
               response = std::move(response), events = std::move(outcome.events)] {
    metrics::count(context_.metrics.stored, stored);
    session->answer(response, bytes);
    for (const v1::Event& event : events) context_.publish(event);
    in_flight->fetch_sub(1, std::memory_order_release);
  };
  context_.writer.submit(std::move(outcome.item), std::move(done));
}

void RunWorker::refuse(Session& session, const absl::Status& status, std::size_t bytes) {
  session.fail(status);
  session.answer({}, bytes);
}

void RunWorker::forget_idle() {
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
