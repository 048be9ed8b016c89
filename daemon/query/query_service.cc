#include "daemon/query/query_service.h"

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "daemon/query/run_summary.h"
#include "daemon/query/streams.h"
#include "proto/validate.h"

namespace gradwarden::query {
namespace {

constexpr std::uint32_t kMaxOpenEvents = 10000;

absl::Status too_busy() {
  return absl::ResourceExhaustedError("too many queries wait already; try again later");
}

// Answers a unary call from the pool. `read` runs there with the request and response of the call,
// which gRPC keeps until it is finished.
template <typename Response, typename Read>
grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* call, ReaderPool& readers,
                                 metrics::DaemonMetrics& metrics, Response* response, Read read) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  const bool taken = readers.submit([reactor, response, read](store::StoreReader& reader) {
    absl::StatusOr<Response> result = read(reader);
    const absl::Status status = result.status();
    if (status.ok()) *response = *std::move(result);
    reactor->Finish(to_grpc(status));
  });
  if (!taken) {
    metrics.limit_acted(metrics::Limit::kQueries);
    reactor->Finish(to_grpc(too_busy()));
  }
  return reactor;
}

grpc::ServerUnaryReactor* refuse(grpc::CallbackServerContext* call, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* refuse(grpc::CallbackServerContext* call, const std::string& problem) {
  return refuse(call, grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, problem));
}

// What is going on in the run, or in all if it is empty. Nothing in a run that is not known yet:
// who watches before the job begins is told of its first event.
absl::StatusOr<std::deque<v1::Event>> open_events_of(store::StoreReader& reader,
                                                     const std::string& run) {
  std::deque<v1::Event> open;
  std::int64_t run_id = 0;
  if (!run.empty()) {
    const absl::StatusOr<store::RunRow> found = find_run(reader, run);
    if (absl::IsNotFound(found.status())) return open;
    if (!found.ok()) return found.status();
    run_id = found->id;
  }
  const absl::StatusOr<std::vector<std::string>> rows =
      reader.open_events(run_id, 0, kMaxOpenEvents);
  if (!rows.ok()) return rows.status();
  for (const std::string& data : *rows) {
    if (!open.emplace_back().ParseFromString(data)) open.pop_back();
  }
  return open;
}

template <typename Message>
class RefusedStream final : public grpc::ServerWriteReactor<Message> {
 public:
  explicit RefusedStream(const grpc::Status& status) { this->Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

QueryService::QueryService(ReaderPool& readers, EventHub& events, metrics::DaemonMetrics& metrics,
                           std::size_t max_watchers, security::Access* access)
    : readers_(readers),
      events_(events),
      metrics_(metrics),
      max_watchers_(max_watchers),
      access_(access) {}

grpc::Status QueryService::admit(const grpc::CallbackServerContext& call, security::Pass* pass) {
  if (access_ == nullptr) return grpc::Status::OK;
  return access_->allow(call, security::Scope::kRead, pass);
}

void QueryService::end_unadmitted() {
  if (access_ == nullptr) return;
  std::vector<std::shared_ptr<WatchStream>> streams;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    streams.assign(watchers_.begin(), watchers_.end());
  }
  for (const auto& stream : streams) {
    if (access_->still_allowed(stream->pass(), security::Scope::kRead)) continue;
    stream->fail(absl::UnauthenticatedError("the token was withdrawn; watch with another one"));
  }
}

grpc::ServerUnaryReactor* QueryService::ListRuns(grpc::CallbackServerContext* call,
                                                 const v1::ListRunsRequest*,
                                                 v1::ListRunsResponse* response) {
  if (const grpc::Status status = admit(*call); !status.ok()) return refuse(call, status);
  return answer(call, readers_, metrics_, response,
                [](store::StoreReader& reader) { return list_runs(reader); });
}

grpc::ServerUnaryReactor* QueryService::GetRun(grpc::CallbackServerContext* call,
                                               const v1::GetRunRequest* request,
                                               v1::GetRunResponse* response) {
  if (const grpc::Status status = admit(*call); !status.ok()) return refuse(call, status);
  if (Problem problem = check_run_name(request->run())) return refuse(call, *problem);
  return answer(call, readers_, metrics_, response, [request](store::StoreReader& reader) {
    return get_run(reader, request->run(), kAllCheckpoints);
  });
}

grpc::ServerUnaryReactor* QueryService::ListEvents(grpc::CallbackServerContext* call,
                                                   const v1::ListEventsRequest* request,
                                                   v1::ListEventsResponse* response) {
  if (const grpc::Status status = admit(*call); !status.ok()) return refuse(call, status);
  if (!request->run().empty()) {
    if (Problem problem = check_run_name(request->run())) return refuse(call, *problem);
  }
  return answer(call, readers_, metrics_, response,
                [request](store::StoreReader& reader) { return list_events(reader, *request); });
}

grpc::ServerUnaryReactor* QueryService::GetFlight(grpc::CallbackServerContext* call,
                                                  const v1::GetFlightRequest* request,
                                                  v1::GetFlightResponse* response) {
  if (const grpc::Status status = admit(*call); !status.ok()) return refuse(call, status);
  if (Problem problem = check_get_flight(*request)) return refuse(call, *problem);
  return answer(call, readers_, metrics_, response,
                [request](store::StoreReader& reader) { return get_flight(reader, *request); });
}

grpc::ServerWriteReactor<v1::HistoryChunk>* QueryService::StreamHistory(
    grpc::CallbackServerContext* call, const v1::StreamHistoryRequest* request) {
  if (const grpc::Status status = admit(*call); !status.ok()) {
    return new RefusedStream<v1::HistoryChunk>(status);
  }
  if (Problem problem = check_stream_history(*request)) {
    return new RefusedStream<v1::HistoryChunk>({grpc::StatusCode::INVALID_ARGUMENT, *problem});
  }
  return new HistoryStream(readers_, metrics_, *request);
}

grpc::ServerWriteReactor<v1::Event>* QueryService::WatchEvents(
    grpc::CallbackServerContext* call, const v1::WatchEventsRequest* request) {
  security::Pass pass;
  if (const grpc::Status status = admit(*call, &pass); !status.ok()) {
    return new RefusedStream<v1::Event>(status);
  }
  if (!request->run().empty()) {
    if (Problem problem = check_run_name(request->run())) {
      return new RefusedStream<v1::Event>({grpc::StatusCode::INVALID_ARGUMENT, *problem});
    }
  }
  auto stream = std::make_shared<WatchStream>(*this, events_, metrics_, pass);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (draining_) {
      return new RefusedStream<v1::Event>(
          {grpc::StatusCode::UNAVAILABLE, "the daemon is shutting down; connect again"});
    }
    if (watchers_.size() >= max_watchers_) {
      metrics_.limit_acted(metrics::Limit::kWatchers);
      return new RefusedStream<v1::Event>({grpc::StatusCode::RESOURCE_EXHAUSTED,
                                           "all " + std::to_string(max_watchers_) +
                                               " watchers that query.max_watchers allows are in "
                                               "use"});
    }
    watchers_.insert(stream);
  }
  // Watching begins before the open events are read, so that none falls in between; an event may
  // then come twice, with the same id and revision.
  stream->watch(request->run());
  const bool taken = readers_.submit(
      [stream, run = request->run(), wanted = request->include_open()](store::StoreReader& reader) {
        absl::StatusOr<std::deque<v1::Event>> open = std::deque<v1::Event>();
        if (wanted) open = open_events_of(reader, run);
        if (open.ok()) {
          stream->open_events(*std::move(open));
        } else {
          stream->fail(open.status());
        }
      });
  if (!taken) {
    metrics_.limit_acted(metrics::Limit::kQueries);
    stream->fail(too_busy());
  }
  return stream.get();
}

void QueryService::drain(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock<std::mutex> lock(mutex_);
  draining_ = true;
  const std::vector<std::shared_ptr<WatchStream>> streams(watchers_.begin(), watchers_.end());
  lock.unlock();
  for (const auto& stream : streams) stream->pump();
  lock.lock();
  ended_.wait_until(lock, deadline, [this] { return watchers_.empty(); });
}

void QueryService::watch_ended(const std::shared_ptr<WatchStream>& stream) {
  const std::lock_guard<std::mutex> lock(mutex_);
  watchers_.erase(stream);
  ended_.notify_all();
}

}  // namespace gradwarden::query
