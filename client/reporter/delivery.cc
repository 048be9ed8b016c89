#include "client/reporter/delivery.h"

#include <algorithm>
#include <utility>

#include "proto/limits.h"

namespace gradwarden::reporter {
namespace {

// Reports under way without an answer. Enough to keep a fast link busy; what is beyond waits in the
// backlog.
constexpr std::size_t kMaxInFlight = 4096;

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

}  // namespace

Delivery::Delivery(const ReporterOptions& options, v1::Hello hello, std::shared_ptr<Signal> signal,
                   std::uint64_t seed, Log log)
    : options_(options),
      hello_(std::move(hello)),
      signal_(std::move(signal)),
      log_(std::move(log)),
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
  const std::uint64_t dropped = backlog_.add(std::move(report));
  if (dropped != 0 && counters_.dropped == 0) {
    trouble(
        "the backlog is full and the oldest reports are dropped; is the daemon reachable? "
        "ReporterOptions::backlog_bytes sets its size",
        said_dropped_);
  }
  counters_.dropped += dropped;
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
  }
  write_next(now);
  return std::max(next_heartbeat_, now + std::chrono::milliseconds(1));
}

void Delivery::connect(Clock::time_point now) {
  if (stub_ == nullptr) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(static_cast<int>(limits::kMaxMessageBytes));
    // We back off ourselves, with jitter; the channel should try whenever it is asked to.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 50);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    stub_ = v1::IngestService::NewStub(
        grpc::CreateCustomChannel(options_.daemon, grpc::InsecureChannelCredentials(), arguments));
  }
  stream_ = std::make_unique<IngestStream>(*stub_, signal_);
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
    said_unreachable_ = false;
    unreachable_since_ = Clock::time_point::max();
    state_ = State::kStreaming;
    next_heartbeat_ = now;  // tell at once where this rank is
  }
  for (const auto& range : response.acknowledgement().stored()) {
    counters_.acknowledged += backlog_.settle(range.first(), range.last());
  }
  for (const auto& rejection : response.acknowledgement().rejected()) {
    counters_.rejected += backlog_.settle(rejection.sequence(), rejection.sequence());
    trouble("the daemon refused a report for good: " + rejection.message(), said_rejected_);
  }
  if (response.has_retry_delay()) {
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
    counters_.dropped += backlog_.clear();
    state_ = State::kRefused;
    return;
  }
  if (treatment == Treatment::kRetrySeldom) {
    backoff_.lengthen();
    trouble(options_.daemon + " turns this rank away (" + status.error_message() +
                "); training goes on, reports wait in memory",
            said_unreachable_);
  } else {
    connection_trouble(was_streaming ? "lost the connection to " : "cannot reach ",
                       status.error_message(), now);
  }
  next_try_ = std::max(now + backoff_.next(), hold_until_);
}

void Delivery::write_next(Clock::time_point now) {
  if (state_ != State::kStreaming || stream_ == nullptr || !stream_->writable()) return;
  if (write_heartbeat(now)) return;
  if (write_batch(now)) return;
  if (finishing_ && backlog_.size() == 0 && write_goodbye()) state_ = State::kLeaving;
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
  v1::IngestRequest request;
  v1::Heartbeat& heartbeat = *request.mutable_heartbeat();
  heartbeat.set_step(step_);
  heartbeat.set_phase(phase_);
  heartbeat.set_time_unix_ns(now_unix_ns());
  heartbeat.set_dropped_reports(counters_.dropped);
  heartbeat.set_pending_reports(backlog_.size());
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
  counters_.dropped += backlog_.clear();
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
    trouble(message, said_unreachable_);
  }
}

void Delivery::trouble(const std::string& message, bool& said) {
  counters_.last_error = message;
  if (!said) log_(message);
  said = true;
}

}  // namespace gradwarden::reporter
