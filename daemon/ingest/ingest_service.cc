#include "daemon/ingest/ingest_service.h"

#include <functional>
#include <utility>

#include "daemon/ingest/ingest_stream.h"
#include "daemon/security/access.h"

namespace gradwarden::ingest {
namespace {

constexpr std::size_t kLinesBeforeClearing = 64;

// A stream that is refused at once; with a delay, if it is for want of room.
class RefusedStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) {
    if (status.error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED) {
      Finish(status);
      return;
    }
    v1::IngestResponse response;
    set_retry_delay(response, kNoRoomDelay);
    const grpc::Slice slice(response.SerializeAsString());
    delay_ = grpc::ByteBuffer(&slice, 1);
    StartWriteAndFinish(&delay_, {}, status);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer delay_;
};

}  // namespace

IngestService::IngestService(IngestContext& context,
                             std::vector<std::unique_ptr<store::StoreReader>> readers)
    : context_(context) {
  for (auto& reader : readers) {
    workers_.push_back(std::make_unique<RunWorker>(context_, std::move(reader)));
  }
}

IngestService::~IngestService() = default;

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* IngestService::Ingest(
    grpc::CallbackServerContext* call) {
  grpc::Status refusal = grpc::Status::OK;
  security::Pass pass;
  if (context_.access != nullptr) {
    refusal = context_.access->allow(*call, security::Scope::kWrite, &pass);
    if (!refusal.ok()) {
      stream_refused(refusal.error_code());
      return new RefusedStream(refusal);
    }
  }
  auto stream = std::make_shared<IngestStream>(*this, pass);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) {
      refusal = {grpc::StatusCode::UNAVAILABLE, "the daemon is shutting down; connect again"};
    } else if (streams_.size() >= context_.limits.max_streams) {
      context_.metrics.limit_acted(metrics::Limit::kStreams);
      refusal = {grpc::StatusCode::RESOURCE_EXHAUSTED,
                 "all " + std::to_string(context_.limits.max_streams) +
                     " streams that grpc.max_streams allows are in use"};
    } else {
      streams_.insert(stream);
    }
  }
  if (!refusal.ok()) {
    stream_refused(refusal.error_code());
    return new RefusedStream(refusal);
  }
  metrics::count(context_.metrics.streams);
  stream->start();
  return stream.get();
}

bool IngestService::drain(std::chrono::steady_clock::time_point deadline) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    draining_ = true;
  }
  for (const auto& stream : open_streams()) stream->resume();
  std::unique_lock<std::mutex> lock(mutex_);
  return ended_.wait_until(lock, deadline, [this] { return streams_.empty(); });
}

void IngestService::end_unadmitted() {
  if (context_.access == nullptr) return;
  for (const auto& stream : open_streams()) {
    if (context_.access->still_allowed(stream->pass(), security::Scope::kWrite)) continue;
    stream->fail(absl::UnauthenticatedError("the token was withdrawn; connect with another one"));
  }
}

void IngestService::send_retry_delay(std::chrono::milliseconds delay) {
  for (const auto& stream : open_streams()) stream->send_retry_delay(delay);
}

RunWorker& IngestService::worker_for(const std::string& run) {
  return *workers_[std::hash<std::string>{}(run) % workers_.size()];
}

std::shared_ptr<RunLine> IngestService::line_for(const std::string& run) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (lines_.size() > 2 * lines_after_clearing_ + kLinesBeforeClearing) {
    std::erase_if(lines_, [](const auto& line) { return line.second.expired(); });
    lines_after_clearing_ = lines_.size();
  }
  std::weak_ptr<RunLine>& known = lines_[run];
  std::shared_ptr<RunLine> line = known.lock();
  if (line == nullptr) known = line = std::make_shared<RunLine>();
  return line;
}

bool IngestService::message_received(RunLine& line, std::size_t bytes) {
  if (!context_.admission.take(line.cost, bytes)) {
    context_.metrics.limit_acted(metrics::Limit::kMemoryBytes);
    return false;
  }
  metrics::count(context_.metrics.queue_messages);
  metrics::count(context_.metrics.queue_bytes, bytes);
  return true;
}

void IngestService::message_done(RunLine& line, std::size_t bytes) {
  context_.metrics.queue_messages.fetch_sub(1, std::memory_order_relaxed);
  context_.metrics.queue_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  context_.admission.release(line.cost, bytes);
  if (parked_count_.load() != 0 && context_.admission.relaxed()) resume_parked();
}

bool IngestService::may_read(const std::shared_ptr<IngestStream>& stream, const RunLine* line) {
  const auto may = [&] {
    return context_.admission.may_read(line == nullptr ? 0 : line->cost.load());
  };
  if (may()) return true;
  const std::lock_guard<std::mutex> lock(mutex_);
  parked_count_.fetch_add(1);
  // Looked at again after it was announced: the message that makes room may just have passed.
  if (may() || context_.admission.relaxed()) {
    parked_count_.fetch_sub(1);
    return true;
  }
  parked_.push_back(stream);
  context_.metrics.limit_acted(metrics::Limit::kQueueBytes);
  return false;
}

void IngestService::resume_parked() {
  std::vector<std::shared_ptr<IngestStream>> parked;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    parked.swap(parked_);
    parked_count_.fetch_sub(parked.size());
  }
  for (const auto& stream : parked) stream->resume();
}

void IngestService::stream_refused(grpc::StatusCode code) {
  const auto index = static_cast<std::size_t>(code);
  if (index < context_.metrics.streams_refused.size()) {
    metrics::count(context_.metrics.streams_refused[index]);
  }
}

void IngestService::message_too_large() {
  context_.metrics.limit_acted(metrics::Limit::kMessageBytes);
}

void IngestService::stream_ended(const std::shared_ptr<IngestStream>& stream) {
  context_.metrics.streams.fetch_sub(1, std::memory_order_relaxed);
  const std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(stream);
  ended_.notify_all();
}

std::vector<std::shared_ptr<IngestStream>> IngestService::open_streams() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {streams_.begin(), streams_.end()};
}

}  // namespace gradwarden::ingest
