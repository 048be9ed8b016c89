#include "daemon/ingest/ingest_stream.h"

#include <vector>

#include "daemon/ingest/ingest_service.h"
#include "proto/limits.h"
#include "proto/validate.h"

namespace gradwarden::ingest {
namespace {

// Where the ReportBatch lies in an IngestRequest that holds nothing else: its bytes are then stored
// as they came. 0 if the message is anything else or encoded in an unusual way.
std::size_t batch_offset(const std::vector<grpc::Slice>& slices, std::size_t total) {
  constexpr unsigned char kBatchTag = (v1::IngestRequest::kBatchFieldNumber << 3) | 2;
  unsigned char head[6] = {};
  std::size_t have = 0;
  for (const grpc::Slice& slice : slices) {
    for (std::size_t i = 0; i < slice.size() && have < sizeof head; ++i)
      head[have++] = slice.begin()[i];
  }
  if (have < 2 || head[0] != kBatchTag) return 0;
  std::uint64_t length = 0;
  for (std::size_t i = 1; i < have; ++i) {
    length |= std::uint64_t{head[i] & 0x7fU} << (7 * (i - 1));
    if ((head[i] & 0x80) == 0) return length == total - (i + 1) ? i + 1 : 0;
  }
  return 0;
}

std::string copy_from(const std::vector<grpc::Slice>& slices, std::size_t total,
                      std::size_t offset) {
  std::string bytes;
  bytes.reserve(total - offset);
  for (const grpc::Slice& slice : slices) {
    const std::size_t skip = offset < slice.size() ? offset : slice.size();
    bytes.append(reinterpret_cast<const char*>(slice.begin()) + skip, slice.size() - skip);
    offset -= skip;
  }
  return bytes;
}

// At least as long as, and at most twice as long as, a client that sends too much is asked to wait.
constexpr std::chrono::milliseconds kHoldBack{250};

grpc::Status to_grpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

}  // namespace

// ---- called by workers, the writer and the service ---------------------------------------------

void IngestStream::answer(const v1::IngestResponse& response, std::size_t bytes) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    --outstanding_;
    // An empty response is no message on the wire.
    if (response.ByteSizeLong() != 0) {
      // Joins field by field: ranges and rejections append, the welcome comes first and alone.
      pending_.MergeFrom(response);
      has_pending_ = true;
    }
  }
  service_.message_done(*line_, bytes);
  pump();
}

void IngestStream::fail(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    fail_locked(status);
  }
  pump();
}

void IngestStream::fail_locked(const absl::Status& status) {
  if (error_ || finished_) return;
  error_ = to_grpc(status);
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) {
    set_retry_delay(pending_, kNoRoomDelay);
    has_pending_ = true;
  }
  service_.stream_refused(error_->error_code());
}

void IngestStream::resume() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    parked_ = false;
  }
  pump();
}

void IngestStream::send_retry_delay(std::chrono::milliseconds delay) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (outstanding_ == 0) return;
    set_retry_delay(pending_, delay);
    has_pending_ = true;
  }
  pump();
}

// ---- gRPC's reactions
// ----------------------------------------------------------------------------

void IngestStream::OnReadDone(bool ok) {
  // Passing through the lock hands the read side over from the thread that started the read.
  std::unique_lock<std::mutex> hand_over(mutex_);
  hand_over.unlock();
  if (ok) take_message();
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    reading_ = false;
    if (!ok) half_closed_ = true;
  }
  pump();
}

void IngestStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  pump();
}

void IngestStream::OnCancel() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
  }
  pump();
}

void IngestStream::OnDone() {
  const std::shared_ptr<IngestStream> keep = shared_from_this();
  if (worker_ != nullptr) worker_->submit(line_, {Inbound::Kind::kClosed, keep, {}, {}});
  service_.stream_ended(keep);
}

// ---- the read side: one reaction at a time
// -------------------------------------------------------

void IngestStream::take_message() {
  const auto arrived = std::chrono::steady_clock::now();
  const std::size_t size = read_buffer_.Length();
  if (size > limits::kMaxMessageBytes) {
    service_.message_too_large();
    fail(absl::InvalidArgumentError("message: " + std::to_string(size) +
                                    " bytes, allowed is at most " +
                                    std::to_string(limits::kMaxMessageBytes)));
    return;
  }
  std::vector<grpc::Slice> slices;
  if (!read_buffer_.Dump(&slices).ok()) {
    fail(absl::InvalidArgumentError("message: its compression cannot be undone"));
    return;
  }
  const std::size_t offset = batch_offset(slices, size);
  std::string bytes = copy_from(slices, size, offset);
  read_buffer_.Clear();
  if (worker_ == nullptr) {
    const absl::Status status =
        offset != 0 ? absl::FailedPreconditionError("the first message of a stream is a hello")
                    : choose_worker(bytes);
    if (!status.ok()) {
      fail(status);
      return;
    }
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_ || cancelled_) return;
    if (!service_.message_received(*line_, bytes.size())) {
      fail_locked(absl::ResourceExhaustedError(
          "all of ingest.memory_bytes is in use; send what is not acknowledged again"));
      return;
    }
    ++outstanding_;
  }
  const Inbound::Kind kind = offset != 0 ? Inbound::Kind::kBatch : Inbound::Kind::kRequest;
  worker_->submit(line_, {kind, shared_from_this(), std::move(bytes), arrived});
}

absl::Status IngestStream::choose_worker(const std::string& bytes) {
  v1::IngestRequest request;
  if (!request.ParseFromString(bytes)) {
    return absl::InvalidArgumentError("message: not a gradwarden.v1.IngestRequest");
  }
  if (!request.has_hello()) {
    return absl::FailedPreconditionError("the first message of a stream is a hello");
  }
  if (Problem problem = check_hello(request.hello())) {
    return absl::InvalidArgumentError(*problem);
  }
  line_ = service_.line_for(request.hello().run());
  worker_ = &service_.worker_for(request.hello().run());
  return absl::OkStatus();
}

// ---- starting operations
// -------------------------------------------------------------------------

bool IngestStream::may_finish() {
  if (finished_ || writing_) return false;
  if (cancelled_) return true;
  if (has_pending_) return false;
  if (error_) return true;
  if (outstanding_ != 0) return false;
  // A drain also ends a stream that waits for the client's next message.
  return half_closed_ || service_.draining();
}

void IngestStream::hold_back() {
  const auto now = std::chrono::steady_clock::now();
  if (line_ == nullptr || now < held_until_) return;
  // Spread, so that not all come back at once.
  const std::chrono::milliseconds delay =
      kHoldBack + std::chrono::milliseconds(now.time_since_epoch().count() % kHoldBack.count());
  held_until_ = now + delay;
  set_retry_delay(pending_, delay);
  has_pending_ = true;
}

IngestStream::Action IngestStream::next_action(std::unique_lock<std::mutex>& lock) {
  if (finished_) return Action::kNone;
  if (may_finish()) {
    finished_ = true;
    if (!error_ && !half_closed_) {
      error_ = cancelled_ ? grpc::Status(grpc::StatusCode::CANCELLED, "the client went away")
                          : grpc::Status(grpc::StatusCode::UNAVAILABLE,
                                         "the daemon is shutting down; connect again");
    }
    return Action::kFinish;
  }
  if (has_pending_ && !writing_ && !cancelled_) {
    writing_ = true;
    return Action::kWrite;
  }
  const bool wants = !reading_ && !parked_ && !half_closed_ && !cancelled_ && !error_ &&
                     !service_.draining() && outstanding_ < service_.window();
  if (!wants) return Action::kNone;
  parked_ = true;
  lock.unlock();
  const bool may = service_.may_read(shared_from_this(), line_.get());
  lock.lock();
  if (!may) {
    hold_back();
    return next_action(lock);
  }
  parked_ = false;
  if (finished_ || error_ || cancelled_) return next_action(lock);
  reading_ = true;
  return Action::kRead;
}

void IngestStream::pump() {
  const std::shared_ptr<IngestStream> keep = shared_from_this();
  std::unique_lock<std::mutex> lock(mutex_);
  if (pumping_) return;  // the thread that pumps looks again before it leaves
  pumping_ = true;
  while (true) {
    const Action action = next_action(lock);
    if (action == Action::kNone) break;
    std::string bytes;
    if (action == Action::kWrite) {
      pending_.SerializeToString(&bytes);
      pending_.Clear();
      has_pending_ = false;
    }
    const grpc::Status status = error_.value_or(grpc::Status::OK);
    lock.unlock();
    switch (action) {
      case Action::kRead:
        StartRead(&read_buffer_);
        break;
      case Action::kWrite: {
        const grpc::Slice slice(bytes);
        write_buffer_ = grpc::ByteBuffer(&slice, 1);
        StartWrite(&write_buffer_);
        break;
      }
      case Action::kFinish:
        Finish(status);
        break;
      case Action::kNone:
        break;
    }
    lock.lock();
  }
  pumping_ = false;
}

}  // namespace gradwarden::ingest
