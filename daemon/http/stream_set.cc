#include "daemon/http/stream_set.h"

#include <microhttpd.h>

#include <chrono>
#include <exception>
#include <utility>
#include <vector>

namespace gradwarden::http {
namespace {

constexpr std::chrono::milliseconds kInterval{500};
// A comment, by which the loop notices that the client is gone.
constexpr int kQuietIntervals = 20;
constexpr char kComment[] = ":\n\n";
constexpr std::size_t kMaxBuffered = 4U << 20;
constexpr std::size_t kBlock = 32768;

}  // namespace

struct StreamSet::Open {
  MHD_Connection* connection = nullptr;
  std::unique_ptr<Stream> stream;  // the thread's own
  StillAllowed still_allowed;      // the thread's own
  Ending ending;
  int quiet = 0;  // the thread's own

  std::mutex mutex;
  std::string buffer;      // guarded by mutex
  bool ended = false;      // guarded by mutex
  bool suspended = false;  // guarded by mutex
  bool gone = false;       // guarded by mutex: the connection is no more
};

struct StreamSet::Callbacks {
  static ssize_t read(void* context, std::uint64_t, char* out, size_t room) {
    Open& open = **static_cast<std::shared_ptr<Open>*>(context);
    const std::lock_guard<std::mutex> lock(open.mutex);
    if (open.ending->load()) return MHD_CONTENT_READER_END_OF_STREAM;
    if (open.buffer.empty()) {
      if (open.ended) return MHD_CONTENT_READER_END_OF_STREAM;
      open.suspended = true;
      MHD_suspend_connection(open.connection);
      return 0;
    }
    const std::size_t count = open.buffer.copy(out, room);
    open.buffer.erase(0, count);
    return static_cast<ssize_t>(count);
  }

  static void release(void* context) {
    const std::unique_ptr<std::shared_ptr<Open>> open(static_cast<std::shared_ptr<Open>*>(context));
    const std::lock_guard<std::mutex> lock((*open)->mutex);
    (*open)->gone = true;
  }
};

StreamSet::StreamSet(std::size_t max_streams)
    : max_streams_(max_streams), thread_([this] { run(); }) {}

StreamSet::~StreamSet() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

MHD_Response* StreamSet::begin(MHD_Connection* connection, std::unique_ptr<Stream> stream,
                               StillAllowed still_allowed, Ending ending) {
  auto open = std::make_shared<Open>();
  open->connection = connection;
  open->stream = std::move(stream);
  open->still_allowed = std::move(still_allowed);
  open->ending = std::move(ending);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (open_.size() >= max_streams_) return nullptr;
    open_.push_back(open);
  }
  wake_.notify_one();  // its first piece need not wait for the next turn
  return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, kBlock, &Callbacks::read,
                                           new std::shared_ptr<Open>(open), &Callbacks::release);
}

void StreamSet::end_those_that_must() {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const std::shared_ptr<Open>& open : open_) {
    const std::lock_guard<std::mutex> open_lock(open->mutex);
    if (!open->suspended || open->gone || !open->ending->load()) continue;
    open->suspended = false;
    MHD_resume_connection(open->connection);
  }
}

// Asks one stream for more, and wakes its connection if there is any.
void StreamSet::ask(Open& open) {
  std::optional<std::string> piece;
  const bool allowed = !open.still_allowed || open.still_allowed();
  try {
    if (allowed) piece = open.stream->next();
  } catch (const std::exception&) {
    piece = std::nullopt;  // the client asks again
  }
  if (piece && piece->empty() && ++open.quiet >= kQuietIntervals) piece = kComment;
  const std::lock_guard<std::mutex> lock(open.mutex);
  if (!allowed) open.buffer.clear();  // nor may it have what it has not taken yet
  if (!piece || open.buffer.size() > kMaxBuffered) {
    open.ended = true;
  } else if (!piece->empty()) {
    open.quiet = 0;
    open.buffer += *piece;
  }
  if (open.gone || !open.suspended || (open.buffer.empty() && !open.ended)) return;
  open.suspended = false;
  MHD_resume_connection(open.connection);
}

void StreamSet::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    open_.remove_if([](const std::shared_ptr<Open>& open) {
      const std::lock_guard<std::mutex> open_lock(open->mutex);
      return open->gone;
    });
    const std::vector<std::shared_ptr<Open>> all(open_.begin(), open_.end());
    lock.unlock();
    for (const std::shared_ptr<Open>& open : all) {
      bool ended = false;
      {
        const std::lock_guard<std::mutex> open_lock(open->mutex);
        ended = open->ended;
      }
      if (!ended) ask(*open);
    }
    lock.lock();
    if (!stopping_) wake_.wait_for(lock, kInterval);
  }
}

}  // namespace gradwarden::http
