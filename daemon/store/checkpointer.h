// Folds the write-ahead log into the database from a thread of its own, because that is what waits
// for the disk: commits only hand pages to the kernel and go on meanwhile.
//
// request() may be called from any thread and never blocks.
#ifndef GRADWARDEN_DAEMON_STORE_CHECKPOINTER_H_
#define GRADWARDEN_DAEMON_STORE_CHECKPOINTER_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "daemon/store/sqlite.h"

namespace gradwarden::store {

class Checkpointer {
 public:
  // Opens a connection of its own to the database.
  static absl::StatusOr<std::unique_ptr<Checkpointer>> open(const std::string& path,
                                                            const std::string& synchronous);
  ~Checkpointer();
  Checkpointer(const Checkpointer&) = delete;
  Checkpointer& operator=(const Checkpointer&) = delete;

  // Asks for a checkpoint; requests during one lead to one more.
  void request();

 private:
  explicit Checkpointer(Connection connection);
  void run();

  Connection connection_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool requested_ = false;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::thread thread_;      // last: starts in the constructor
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_CHECKPOINTER_H_
