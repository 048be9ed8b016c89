#include "daemon/store/checkpointer.h"

#include <utility>

namespace gradwarden::store {

absl::StatusOr<std::unique_ptr<Checkpointer>> Checkpointer::open(const std::string& path,
                                                                 const std::string& synchronous) {
  absl::StatusOr<Connection> connection = Connection::open(path, Connection::Mode::kReadWrite);
  if (!connection.ok()) return connection.status();
  if (absl::Status status = connection->execute(synchronous); !status.ok()) return status;
  return std::unique_ptr<Checkpointer>(new Checkpointer(*std::move(connection)));
}

Checkpointer::Checkpointer(Connection connection)
    : connection_(std::move(connection)), thread_([this] { run(); }) {}

Checkpointer::~Checkpointer() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Checkpointer::request() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    requested_ = true;
  }
  wake_.notify_one();
}

void Checkpointer::run() {
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return requested_ || stopping_; });
      if (stopping_) return;
      requested_ = false;
    }
    // One that fails is asked for again by a later commit, which also reports what is wrong.
    connection_.execute("PRAGMA wal_checkpoint(PASSIVE)").IgnoreError();
  }
}

}  // namespace gradwarden::store
