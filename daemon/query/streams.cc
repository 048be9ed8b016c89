#include "daemon/query/streams.h"

#include <utility>

#include "daemon/query/query_service.h"

namespace gradwarden::query {
namespace {

absl::Status too_busy() {
  return absl::ResourceExhaustedError("too many queries wait already; try again later");
}

}  // namespace

grpc::Status to_grpc(const absl::Status& status) {
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message())};
}

// ---- HistoryStream
// -------------------------------------------------------------------------------

HistoryStream::HistoryStream(ReaderPool& readers, metrics::DaemonMetrics& metrics,
                             const v1::StreamHistoryRequest& request)
    : readers_(readers), cursor_(request) {
  if (readers_.submit([this](store::StoreReader& reader) { read_next(reader); })) return;
  metrics.limit_acted(metrics::Limit::kQueries);
  Finish(to_grpc(too_busy()));
}

void HistoryStream::read_next(store::StoreReader& reader) {
  absl::StatusOr<bool> more = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const absl::Status opened = opened_ ? absl::OkStatus() : cursor_.open(reader);
    opened_ = true;
    more = opened.ok() ? cursor_.next(reader, chunk_) : opened;
  }
  if (!more.ok()) {
    Finish(to_grpc(more.status()));
  } else if (*more) {
    StartWrite(&chunk_);
  } else {
    Finish(grpc::Status::OK);
  }
}

void HistoryStream::OnWriteDone(bool ok) {
  if (!ok) {
    Finish({grpc::StatusCode::CANCELLED, "the client went away"});
    return;
  }
  readers_.submit([this](store::StoreReader& reader) { read_next(reader); }, /*more=*/true);
}

// ---- WatchStream
// ---------------------------------------------------------------------------------

void WatchStream::watch(const std::string& run) {
  const std::weak_ptr<WatchStream> self = weak_from_this();
  id_ = hub_.watch(run, [self] {
    if (const std::shared_ptr<WatchStream> stream = self.lock()) stream->pump();
  });
  metrics::count(metrics_.watchers);
}

void WatchStream::open_events(std::deque<v1::Event> open) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = std::move(open);
    ready_ = true;
  }
  pump();
}

void WatchStream::fail(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (error_.ok()) error_ = status;
  }
  pump();
}

void WatchStream::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (!ok) cancelled_ = true;
  }
  pump();
}

void WatchStream::OnCancel() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
  }
  pump();
}

void WatchStream::OnDone() {
  const std::shared_ptr<WatchStream> keep = shared_from_this();
  hub_.unwatch(id_);
  metrics_.watchers.fetch_sub(1, std::memory_order_relaxed);
  service_.watch_ended(keep);
}

// Under the lock: moves the next event into event_.
bool WatchStream::next_event() {
  if (!open_.empty()) {
    event_ = std::move(open_.front());
    open_.pop_front();
    return true;
  }
  const std::shared_ptr<const v1::Event> event = hub_.take(id_);
  if (event == nullptr) return false;
  event_ = *event;
  return true;
}

void WatchStream::pump() {
  const std::shared_ptr<WatchStream> keep = shared_from_this();
  std::unique_lock<std::mutex> lock(mutex_);
  if (pumping_) {
    again_ = true;
    return;
  }
  pumping_ = true;
  do {
    again_ = false;
    if (finished_ || writing_) continue;
    if (error_.ok() && service_.draining()) {
      error_ = absl::UnavailableError("the daemon is shutting down; connect again");
    }
    if (error_.ok() && hub_.overflowed(id_)) {
      metrics_.limit_acted(metrics::Limit::kWatchQueue);
      error_ = absl::ResourceExhaustedError(
          "events came faster than this watcher took them and some were lost; read them with "
          "ListEvents and watch again");
    }
    if (cancelled_ || !error_.ok()) {
      finished_ = true;
      const grpc::Status status =
          cancelled_ ? grpc::Status(grpc::StatusCode::CANCELLED, "the client went away")
                     : to_grpc(error_);
      lock.unlock();
      Finish(status);
      lock.lock();
    } else if (ready_ && next_event()) {
      writing_ = true;
      again_ = true;
      lock.unlock();
      StartWrite(&event_);
      lock.lock();
    }
  } while (again_);
  pumping_ = false;
}

}  // namespace gradwarden::query
