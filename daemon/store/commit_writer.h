// The one thread that writes: takes what has been submitted since the last commit, commits it as
// one group, then runs the completions in the order of submission.
//
// A commit that fails is logged, counted and tried again with the same items until it succeeds:
// nothing is acknowledged meanwhile, nothing is lost from memory, and what stands behind it keeps
// its place. Who must not wait that long is told of the delay. The queue is bounded by its
// producers, who wait for completions before they take in more.
//
// submit() may be called from any thread. Completions run on the writer's thread and must not
// block.
#ifndef GRADWARDEN_DAEMON_STORE_COMMIT_WRITER_H_
#define GRADWARDEN_DAEMON_STORE_COMMIT_WRITER_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "daemon/store/store.h"

namespace gradwarden::store {

struct CommitWriterOptions {
  std::size_t max_group_items = 512;
  // Under load, commits begin at least so far apart (unless a whole group waits): a few large
  // groups cost much less than many small ones. What comes when the writer is idle, or comes one at
  // a time, is committed at once.
  std::chrono::microseconds pace{2000};
  std::chrono::milliseconds retry_interval{500};
};

// What an owner may observe; called on the writer's thread.
struct CommitObserver {
  std::function<void(double seconds, std::size_t items)> on_commit = [](double, std::size_t) {};
  std::function<void(const absl::Status&)> on_failure = [](const absl::Status&) {};
  std::function<void()> on_recovery = [] {};
};

class CommitWriter {
 public:
  using Done = std::function<void()>;

  CommitWriter(Store& store, CommitWriterOptions options, CommitObserver observer);
  ~CommitWriter();
  CommitWriter(const CommitWriter&) = delete;
  CommitWriter& operator=(const CommitWriter&) = delete;

  // After the item is committed, `done` runs. An item may be empty: then `done` is a barrier behind
  // all that was submitted before. While the store fails, `delayed` runs before that, once: for
  // what must happen also when nothing can be stored.
  void submit(std::unique_ptr<CommitItem> item, Done done, Done delayed = nullptr);

  std::size_t queued() const;
  // The last commit failed and is being tried again.
  bool failing() const { return failing_.load(std::memory_order_relaxed); }

  // Commits what was submitted and ends the thread; gives up on a failing store at the deadline,
  // then returns false: the rest was not stored and not acknowledged.
  bool stop(std::chrono::steady_clock::time_point deadline);

 private:
  struct Entry {
    std::unique_ptr<CommitItem> item;
    Done done;
    Done delayed;
  };

  void run();
  bool take_group(std::vector<Entry>& group);
  bool commit_group(std::vector<Entry>& group);
  void tell_of_delay(std::vector<Entry>& group);
  bool wait_for_retry();

  Store& store_;
  const CommitWriterOptions options_;
  const CommitObserver observer_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Entry> queue_;                            // guarded by mutex_
  bool stopping_ = false;                               // guarded by mutex_
  std::chrono::steady_clock::time_point deadline_{};    // guarded by mutex_
  std::chrono::steady_clock::time_point last_begin_{};  // of a commit; the thread's own
  std::size_t last_group_ = 0;                          // items in it; the thread's own
  std::atomic<std::size_t> queued_{0};
  std::atomic<bool> failing_{false};
  bool gave_up_ = false;  // written by the thread, read after join
  std::thread thread_;    // last: starts in the constructor
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_COMMIT_WRITER_H_
