#include "daemon/store/commit_writer.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace gradwarden::store {

using Clock = std::chrono::steady_clock;

CommitWriter::CommitWriter(Store& store, CommitWriterOptions options, CommitObserver observer)
    : store_(store),
      options_(options),
      observer_(std::move(observer)),
      thread_([this] { run(); }) {}

CommitWriter::~CommitWriter() { stop(Clock::now()); }

void CommitWriter::submit(std::unique_ptr<CommitItem> item, Done done, Done delayed) {
  queued_.fetch_add(1, std::memory_order_relaxed);
  bool wake = false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back({std::move(item), std::move(done), std::move(delayed)});
    wake = queue_.size() == 1 || queue_.size() == options_.max_group_items;
  }
  if (wake) wake_.notify_one();
}

std::size_t CommitWriter::queued() const { return queued_.load(std::memory_order_relaxed); }

bool CommitWriter::stop(Clock::time_point deadline) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    deadline_ = deadline;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  return !gave_up_;
}

// Waits for work, then for company. False when there is none and none will come.
bool CommitWriter::take_group(std::vector<Entry>& group) {
  std::unique_lock<std::mutex> lock(mutex_);
  wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
  // Who was alone has nobody to wait for.
  if (last_group_ > 1) {
    wake_.wait_until(lock, last_begin_ + options_.pace,
                     [this] { return stopping_ || queue_.size() >= options_.max_group_items; });
  }
  if (queue_.empty()) return false;
  last_begin_ = Clock::now();
  last_group_ = std::min(queue_.size(), options_.max_group_items);
  if (queue_.size() <= options_.max_group_items) {
    group.swap(queue_);
    return true;
  }
  const auto end = queue_.begin() + static_cast<std::ptrdiff_t>(options_.max_group_items);
  group.assign(std::make_move_iterator(queue_.begin()), std::make_move_iterator(end));
  queue_.erase(queue_.begin(), end);
  return true;
}

void CommitWriter::run() {
  std::vector<Entry> group;
  while (take_group(group)) {
    if (!commit_group(group)) {
      gave_up_ = true;
      return;
    }
    queued_.fetch_sub(group.size(), std::memory_order_relaxed);
    for (Entry& entry : group) {
      if (entry.done) entry.done();
    }
    group.clear();
  }
}

bool CommitWriter::commit_group(std::vector<Entry>& group) {
  std::vector<const CommitItem*> items;
  for (const Entry& entry : group) {
    if (entry.item != nullptr) items.push_back(entry.item.get());
  }
  if (items.empty()) return true;
  while (true) {
    const Clock::time_point begin = Clock::now();
    const absl::Status status = store_.commit(items);
    if (status.ok()) {
      const std::chrono::duration<double> taken = Clock::now() - begin;
      observer_.on_commit(taken.count(), items.size());
      if (failing_.exchange(false)) observer_.on_recovery();
      return true;
    }
    failing_ = true;
    observer_.on_failure(status);
    tell_of_delay(group);
    if (!wait_for_retry()) return false;
  }
}

// Those in the group that failed, and those that wait behind it, in their order.
void CommitWriter::tell_of_delay(std::vector<Entry>& group) {
  std::vector<Done> calls;
  const auto take = [&calls](std::vector<Entry>& entries) {
    for (Entry& entry : entries) {
      if (entry.delayed) calls.push_back(std::exchange(entry.delayed, nullptr));
    }
  };
  take(group);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    take(queue_);
  }
  for (const Done& call : calls) call();
}

bool CommitWriter::wait_for_retry() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!stopping_) {
    wake_.wait_for(lock, options_.retry_interval, [this] { return stopping_; });
    return true;
  }
  if (Clock::now() >= deadline_) return false;
  const Clock::time_point until = std::min(deadline_, Clock::now() + options_.retry_interval);
  wake_.wait_until(lock, until, [] { return false; });
  return true;
}

}  // namespace gradwarden::store
