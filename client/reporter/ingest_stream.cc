#include "client/reporter/ingest_stream.h"

#include <utility>

namespace gradwarden::reporter {

void Signal::notify() {
  const std::lock_guard lock(mutex_);
  raised_ = true;
  wake_.notify_all();
}

void Signal::wait_until(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  wake_.wait_until(lock, deadline, [this] { return raised_; });
  raised_ = false;
}

IngestStream::IngestStream(v1::IngestService::Stub& stub, std::shared_ptr<Signal> signal,
                           const ChannelSecrets& secrets)
    : signal_(std::move(signal)) {
  add_authorization(context_, secrets);
  stub.async()->Ingest(&context_, this);
  AddHold();  // writes start outside of the reactor's own callbacks
  StartRead(&incoming_);
  StartCall();
}

bool IngestStream::writable() {
  const std::lock_guard lock(shared_->mutex);
  return !shared_->writing && !shared_->closing;
}

void IngestStream::write(v1::IngestRequest request) {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->closing) return;
    shared_->writing = true;
    AddHold();  // OnDone must not come between here and StartWrite
  }
  outgoing_ = std::move(request);
  StartWrite(&outgoing_);
  RemoveHold();
}

std::vector<v1::IngestResponse> IngestStream::take() {
  const std::lock_guard lock(shared_->mutex);
  return std::exchange(shared_->responses, {});
}

void IngestStream::cancel() { context_.TryCancel(); }

std::optional<grpc::Status> IngestStream::ended() {
  const std::lock_guard lock(shared_->mutex);
  return shared_->status;
}

void IngestStream::OnWriteDone(bool ok) {
  if (ok) {
    const std::lock_guard lock(shared_->mutex);
    shared_->writing = false;
  }
  signal_->notify();
}

void IngestStream::OnReadDone(bool ok) {
  if (!ok) {  // the stream is over: let go of the hold so that OnDone can come
    {
      const std::lock_guard lock(shared_->mutex);
      shared_->closing = true;
    }
    RemoveHold();
    return;
  }
  {
    const std::lock_guard lock(shared_->mutex);
    shared_->responses.push_back(std::move(incoming_));
  }
  incoming_.Clear();
  StartRead(&incoming_);
  signal_->notify();
}

void IngestStream::OnDone(const grpc::Status& status) {
  const std::shared_ptr<Signal> signal = signal_;
  const std::shared_ptr<Shared> shared = shared_;
  {
    const std::lock_guard lock(shared->mutex);
    shared->status = status;
  }
  signal->notify();
}

}  // namespace gradwarden::reporter
