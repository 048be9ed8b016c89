#include "daemon/ingest/run_worker.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "daemon/ingest/event_builder.h"
#include "daemon/ingest/teller.h"
#include "proto/limits.h"

namespace gradwarden::ingest {
namespace {

// How often silence is looked for, and attempts that nobody needs in memory.
constexpr std::chrono::milliseconds kSweepInterval{500};
// Between two looks: this worker did not run.
constexpr std::uint64_t kAwayNs = 5'000'000'000;
constexpr std::size_t kKeptBatchBytes = 1 << 20;

absl::Status invalid(Problem problem) { return absl::InvalidArgumentError(*problem); }

}  // namespace

RunWorker::RunWorker(IngestContext& context, std::unique_ptr<store::StoreReader> reader)
    : context_(context),
      directory_(context, std::move(reader)),
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

void RunWorker::submit(const std::shared_ptr<RunLine>& line, Inbound inbound) {
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    wake = queue_.empty();
    queue_.push(line, std::move(inbound));
  }
  if (wake) wake_.notify_one();
}

void RunWorker::run() {
  std::vector<Inbound> taken;
  auto next_sweep = std::chrono::steady_clock::now() + kSweepInterval;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait_until(lock, next_sweep, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty() && stopping_) return;
      queue_.take_round(taken);
    }
    for (Inbound& inbound : taken) handle(inbound);
    taken.clear();
    if (std::chrono::steady_clock::now() >= next_sweep) {
      look_for_stalls();
      directory_.forget_idle();
      next_sweep = std::chrono::steady_clock::now() + kSweepInterval;
    }
  }
}

void RunWorker::handle(Inbound& inbound) {
  arrived_ = inbound.arrived;
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
  // A large batch, of flight recordings for example, leaves its memory behind with the batch.
  if (size > kKeptBatchBytes) v1::ReportBatch().Swap(&batch_);
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
  const absl::StatusOr<std::shared_ptr<Attempt>> attempt = directory_.find(hello, *outcome.item);
  if (!attempt.ok()) {
    refuse(*session, attempt.status(), bytes);
    return;
  }
  const absl::StatusOr<RankState*> rank = directory_.find_rank(**attempt, hello.rank());
  if (!rank.ok()) {
    // The attempt is in memory now, so the store must know it too.
    context_.writer.submit(std::move(outcome.item), nullptr);
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
  if (attempt.metrics != nullptr && !attempt.metrics->shared()) {
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
  processor_.note_checkpoints(attempt, goodbye.checkpoint_steps());
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

void RunWorker::look_for_stalls() {
  const std::uint64_t now = context_.now_ns();
  // A daemon that was stopped, with its machine or by a signal, heard nobody meanwhile.
  const bool was_away = last_look_ns_ != 0 && now > last_look_ns_ + kAwayNs;
  last_look_ns_ = now;
  for (const AttemptDirectory::Present& present : directory_.present()) {
    if (was_away) present.attempt->listen_from(now);
    Outcome outcome = processor_.observe_time(*present.attempt, present.superseded);
    if (outcome.item == nullptr) continue;
    auto in_flight = present.attempt->in_flight;
    in_flight->fetch_add(1, std::memory_order_relaxed);
    const std::function<void()> tell = teller(context_, std::move(outcome.events));
    auto done = [in_flight, tell] {
      tell();
      in_flight->fetch_sub(1, std::memory_order_release);
    };
    context_.writer.submit(std::move(outcome.item), std::move(done), tell);
  }
}

void RunWorker::commit(const std::shared_ptr<Session>& session, Outcome outcome,
                       v1::IngestResponse response, std::size_t bytes) {
  auto in_flight = session->attempt->in_flight;
  in_flight->fetch_add(1, std::memory_order_relaxed);
  const std::function<void()> tell = teller(context_, std::move(outcome.events));
  auto done = [this, session, in_flight, bytes, stored = outcome.stored, arrived = arrived_,
               response = std::move(response), tell] {
    metrics::count(context_.metrics.stored, stored);
    if (stored != 0) observe_lag(arrived);
    session->answer(response, bytes);
    tell();
    in_flight->fetch_sub(1, std::memory_order_release);
  };
  context_.writer.submit(std::move(outcome.item), std::move(done), tell);
}

void RunWorker::observe_lag(Arrival arrived) {
  const std::chrono::duration<double> lag = std::chrono::steady_clock::now() - arrived;
  context_.metrics.ingest_lag.observe(lag.count());
}

void RunWorker::refuse(Session& session, const absl::Status& status, std::size_t bytes) {
  session.fail(status);
  session.answer({}, bytes);
}

}  // namespace gradwarden::ingest
