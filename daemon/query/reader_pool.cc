#include "daemon/query/reader_pool.h"

#include <utility>

namespace gradwarden::query {

ReaderPool::ReaderPool(std::vector<std::unique_ptr<store::StoreReader>> readers,
                       std::size_t max_waiting)
    : max_waiting_(max_waiting), readers_(std::move(readers)) {
  for (auto& reader : readers_) threads_.emplace_back([this, &reader] { run(*reader); });
}

// What was let in is done: calls that wait for it would never end otherwise.
ReaderPool::~ReaderPool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool ReaderPool::submit(Task task, bool more) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!more && tasks_.size() >= max_waiting_) return false;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
  return true;
}

void ReaderPool::run(store::StoreReader& reader) {
  while (true) {
    Task task;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task(reader);
  }
}

}  // namespace gradwarden::query
