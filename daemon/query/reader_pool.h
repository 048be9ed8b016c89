// A few threads that read the store, each with a reader of its own, so that gRPC's threads never
// wait for the disk. The queue is bounded: beyond it the caller is told to refuse.
//
// Any thread may submit. The destructor ends after the tasks that were let in.
#ifndef GRADWARDEN_DAEMON_QUERY_READER_POOL_H_
#define GRADWARDEN_DAEMON_QUERY_READER_POOL_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "daemon/store/store.h"

namespace gradwarden::query {

class ReaderPool {
 public:
  using Task = std::function<void(store::StoreReader&)>;

  // One thread per reader.
  ReaderPool(std::vector<std::unique_ptr<store::StoreReader>> readers, std::size_t max_waiting);
  ~ReaderPool();
  ReaderPool(const ReaderPool&) = delete;
  ReaderPool& operator=(const ReaderPool&) = delete;

  // False if too many wait already. A task that continues one which was let in (`more`) is always
  // taken: there is at most one per call.
  bool submit(Task task, bool more = false);

 private:
  void run(store::StoreReader& reader);

  const std::size_t max_waiting_;
  std::vector<std::unique_ptr<store::StoreReader>> readers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Task> tasks_;  // guarded by mutex_
  bool stopping_ = false;   // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace gradwarden::query

#endif  // GRADWARDEN_DAEMON_QUERY_READER_POOL_H_
