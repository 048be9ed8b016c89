#include "client/reporter/delivery.h"

#include <algorithm>
#include <utility>

#include "client/reporter/settings.h"
#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

// Reports under way without an answer. Enough to keep a fast link busy; what is beyond waits in the
// backlog.
constexpr std::size_t kMaxInFlight = 4096;

constexpr std::chrono::seconds kSaidAgainAfter{60};

std::uint64_t now_unix_ns() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

enum class Treatment { kRetry, kRetrySeldom, kRefused };

// The table in proto/CONTRACT.md.
Treatment treatment_of(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
      return Treatment::kRefused;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNIMPLEMENTED:
      return Treatment::kRetrySeldom;
    default:
      return Treatment::kRetry;
  }
}

v1::Hello of(v1::Hello hello, bool leftover) {
  hello.set_leftover(leftover);
  return hello;
}

}  // namespace

Delivery::Delivery(const ReporterOptions& options, v1::Hello hello, std::shared_ptr<Signal> signal,
                   std::uint64_t seed, Log log, std::unique_ptr<Spool> spool, bool leftover)
    : options_(options),
      security_(channel_security(options)),
      hello_(of(std::move(hello), leftover)),
      signal_(std::move(signal)),
      log_(std::move(log)),
      leftover_(leftover),
      spool_(std::move(spool)),
      backlog_(options.backlog_bytes),
      backoff_(seed),
      batch_reports_(options.batch_reports),
      batch_bytes_(limits::kMaxMessageBytes / 2) {}

Delivery::~Delivery() { end_stream(); }

void Delivery::add(v1::Report report) {
  if (state_ == State::kRefused) {
    ++counters_.dropped;
    return;
  }
  if (spool_ != nullptr) {
    add_to_spool(std::move(report));
    return;
  }
  const std::uint64_t dropped = backlog_.add(std::move(report));
  if (dropped != 0 && counters_.dropped == 0) {
    trouble(
        "the backlog is full and the oldest reports are dropped; is the daemon reachable? "
        "ReporterOptions::backlog_bytes sets its size",
        said_dropped_);
  }
  counters_.dropped += dropped;
}

void Delivery::add_to_spool(v1::Report report) {
  report.set_sequence(backlog_.take_sequence());
  // In order: nothing overtakes what is on disk alone.
  const bool in_memory = spool_->unread() == 0 && backlog_.has_room();
  std::string error;
  const bool on_disk = spool_->append(report, in_memory, &error);
  if (!on_disk) {
    trouble("the spool takes no reports: " + error + "; they wait in memory alone", said_spool_);
  }
  if (in_memory) {
    backlog_.keep(std::move(report));
  } else if (!on_disk) {
    ++counters_.dropped;
  }
  while (spool_->full()) {
    const Spool::Dropped dropped = spool_->drop_oldest();
    if (dropped.first > dropped.last) return;
    counters_.dropped += backlog_.settle(dropped.first, dropped.last) + dropped.unread;
    trouble(
        "the spool is full and the oldest reports are dropped; is the daemon reachable? "
        "ReporterOptions::spool_bytes sets its size",
        said_dropped_);
  }
}

// Brings back from the disk what there is room for.
void Delivery::refill() {
  v1::Report report;
  while (spool_ != nullptr && spool_->unread() != 0 && backlog_.has_room() &&
         spool_->read(report)) {
    backlog_.keep(std::move(report));
  }
  if (spool_ == nullptr) return;
  if (const std::uint64_t lost = spool_->take_lost(); lost != 0) {
    counters_.dropped += lost;
    trouble("of the spool " + std::to_string(lost) +
                " reports cannot be read back; did somebody delete files of "
                "ReporterOptions::spool_directory?",
            said_spool_);
  }
}

// Something was acknowledged or refused.
void Delivery::settled() {
  if (spool_ == nullptr) return;
  const std::uint64_t lowest = backlog_.lowest_pending();
  spool_->settle(lowest != 0 ? lowest - 1 : spool_->read_up_to());
}

void Delivery::set_progress(std::uint64_t step, v1::Phase phase) {
  step_ = step;
  phase_ = phase;
}

void Delivery::finish(const std::vector<std::uint64_t>& checkpoint_steps) {
  finishing_ = true;
  last_checkpoints_ = checkpoint_steps;
}

Delivery::Clock::time_point Delivery::advance(Clock::time_point now) {
  if (done()) return now + options_.heartbeat_interval;
  if (stream_ != nullptr) {
    read_responses(now);
    if (const auto status = stream_->ended()) stream_ended(*status, now);
  }
  if (done()) return now + options_.heartbeat_interval;
  if (stream_ == nullptr) {
    if (now < next_try_) return next_try_;
    connect(now);
    if (stream_ == nullptr) return next_try_;
  }
  refill();
  write_next(now);
  return std::max(next_heartbeat_, now + std::chrono::milliseconds(1));
}

bool Delivery::open_stub(Clock::time_point now) {
  ChannelSecrets secrets;
  if (const auto problem = read_secrets(security_, secrets)) {
    ++counters_.failures;
    trouble(*problem + "; training goes on, reports wait", said_unreachable_);
    next_try_ = now + backoff_.next();
    return false;
  }
  if (stub_ != nullptr && secrets == secrets_) return true;
  grpc::ChannelArguments arguments;
  arguments.SetMaxSendMessageSize(static_cast<int>(limits::kMaxMessageBytes));
  // We back off ourselves, with jitter; the channel should try whenever it is asked to.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // This one is, in spite of its name, how long a connection may take to be made: over a slow
  // network, or to a daemon that all trainers return to at once, that is more than a moment.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  stub_ = v1::IngestService::NewStub(open_channel(options_.daemon, security_, secrets, arguments));
  secrets_ = std::move(secrets);
  return true;
}

void Delivery::connect(Clock::time_point now) {
  if (!open_stub(now)) return;
  stream_ = std::make_unique<IngestStream>(*stub_, signal_, secrets_);
  backlog_.rewind();
  v1::IngestRequest request;
  *request.mutable_hello() = hello_;
  stream_->write(std::move(request));
  next_heartbeat_ = now + options_.heartbeat_interval;
  state_ = State::kGreeting;
}

void Delivery::read_responses(Clock::time_point now) {
  for (const v1::IngestResponse& response : stream_->take()) take(response, now);
}

void Delivery::take(const v1::IngestResponse& response, Clock::time_point now) {
  if (response.has_welcome()) {
    const v1::Welcome& welcome = response.welcome();
    if (welcome.max_batch_reports() != 0) {
      batch_reports_ = std::min<std::size_t>(options_.batch_reports, welcome.max_batch_reports());
    }
    if (welcome.max_message_bytes() != 0) {
      batch_bytes_ = std::min<std::size_t>(batch_bytes_, welcome.max_message_bytes() / 2);
    }
    for (const auto& range : welcome.stored()) {
      counters_.acknowledged += backlog_.settle(range.first(), range.last());
    }
    ++counters_.connects;
    backoff_.reset();
    // A connection that comes and goes does not fill the trainer's log.
    if (now - said_unreachable_at_ >= kSaidAgainAfter) said_unreachable_ = false;
    unreachable_since_ = Clock::time_point::max();
    state_ = State::kStreaming;
    next_heartbeat_ =
        leftover_ ? now + options_.heartbeat_interval : now;  // tell at once where this rank is
    settled();
  }
  for (const auto& range : response.acknowledgement().stored()) {
    counters_.acknowledged += backlog_.settle(range.first(), range.last());
  }
  for (const auto& rejection : response.acknowledgement().rejected()) {
    counters_.rejected += backlog_.settle(rejection.sequence(), rejection.sequence());
    trouble("the daemon refused a report for good: " + rejection.message(), said_rejected_);
  }
  if (response.has_acknowledgement()) settled();
  if (response.has_retry_delay()) {
    ++counters_.held_back;
    hold_until_ = now + std::chrono::seconds(response.retry_delay().seconds()) +
                  std::chrono::nanoseconds(response.retry_delay().nanos());
  }
  if (!response.advice().text().empty())
    log_("advice from the daemon: " + response.advice().text());
  if (response.goodbye()) state_ = State::kDone;
}

void Delivery::stream_ended(const grpc::Status& status, Clock::time_point now) {
  const bool was_streaming = state_ == State::kStreaming || state_ == State::kLeaving;
  stream_.reset();
  if (state_ == State::kDone) return;
  state_ = State::kWaiting;
  ++counters_.failures;
  const Treatment treatment = treatment_of(status.error_code());
  if (treatment == Treatment::kRefused) {
    trouble("the daemon refuses this run for good, nothing more is sent: " + status.error_message(),
            said_refused_);
    counters_.dropped += pending();
    backlog_.clear();
    if (spool_ != nullptr) spool_->remove();
    state_ = State::kRefused;
    return;
  }
  if (treatment == Treatment::kRetrySeldom) {
    // A token that was good until now has perhaps been renewed: the new one is tried soon.
    if (!was_streaming) backoff_.lengthen();
    trouble(options_.daemon + " turns this rank away (" + status.error_message() +
                "); training goes on, reports wait in memory",
            said_unreachable_);
  } else {
    const std::string hint = was_streaming ? "" : tls_hint(security_, status.error_message());
    connection_trouble(was_streaming ? "lost the connection to " : "cannot reach ",
                       hint.empty() ? status.error_message() : hint, now);
  }
  next_try_ = std::max(now + backoff_.next(), hold_until_);
}

void Delivery::write_next(Clock::time_point now) {
  if (state_ != State::kStreaming || stream_ == nullptr || !stream_->writable()) return;
  if (write_heartbeat(now)) return;
  if (write_batch(now)) return;
  if (finishing_ && pending() == 0 && write_goodbye()) state_ = State::kLeaving;
}

bool Delivery::write_batch(Clock::time_point now) {
  if (now < hold_until_ || !backlog_.has_unsent() || backlog_.in_flight() >= kMaxInFlight) {
    return false;
  }
  v1::IngestRequest request;
  backlog_.take_unsent(batch_reports_, batch_bytes_, *request.mutable_batch());
  if (request.batch().reports_size() == 0) return false;
  stream_->write(std::move(request));
  return true;
}

bool Delivery::write_heartbeat(Clock::time_point now) {
  if (now < next_heartbeat_) return false;
  next_heartbeat_ = now + options_.heartbeat_interval;
  if (leftover_) return false;
  v1::IngestRequest request;
  v1::Heartbeat& heartbeat = *request.mutable_heartbeat();
  heartbeat.set_step(step_);
  heartbeat.set_phase(phase_);
  heartbeat.set_time_unix_ns(now_unix_ns());
  heartbeat.set_dropped_reports(counters_.dropped);
  heartbeat.set_pending_reports(pending());
  stream_->write(std::move(request));
  return true;
}

bool Delivery::write_goodbye() {
  v1::IngestRequest request;
  request.mutable_goodbye()->set_last_step(step_);
  request.mutable_goodbye()->set_dropped_reports(counters_.dropped);
  request.mutable_goodbye()->mutable_checkpoint_steps()->Add(last_checkpoints_.begin(),
                                                             last_checkpoints_.end());
  stream_->write(std::move(request));
  return true;
}

void Delivery::abandon() {
  const bool all_delivered = pending() == 0;
  const std::uint64_t left = backlog_.clear();
  if (spool_ == nullptr) {
    counters_.dropped += left;
  } else if (all_delivered) {
    spool_->remove();
  }
  spool_.reset();
  end_stream();
}

void Delivery::end_stream() {
  if (stream_ == nullptr) return;
  stream_->cancel();
  // A cancelled call ends at once, whatever the network does: gRPC needs no answer for it.
  while (!stream_->ended()) signal_->wait_until(Clock::now() + std::chrono::milliseconds(20));
  stream_.reset();
}

void Delivery::connection_trouble(const std::string& event, const std::string& why,
                                  Clock::time_point now) {
  unreachable_since_ = std::min(unreachable_since_, now);
  const bool rank0 = hello_.rank() == 0;
  const std::string who = rank0 ? "" : "rank " + std::to_string(hello_.rank()) + ": ";
  const std::string message =
      who + event + options_.daemon + " (" + why +
      "); training goes on, reports wait in memory; check that gradwardend runs there";
  if (!rank0 && now - unreachable_since_ < kOthersAreQuiet) {
    counters_.last_error = message;
  } else {
    if (!said_unreachable_) said_unreachable_at_ = now;
    trouble(message, said_unreachable_);
  }
}

void Delivery::trouble(const std::string& message, bool& said) {
  counters_.last_error = message;
  if (!said) log_(message);
  said = true;
}

}  // namespace gradwarden::reporter
