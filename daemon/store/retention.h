// Keeps the history within an age and a size: a thread deletes the oldest segments of reports and
// flight recordings, a few at a time, so that no commit waits long for it.
//
// Runs, attempts, roll-ups and events stay: what happened is worth keeping longer than every step
// of it, and it is small. Nothing younger than an hour (by default) is deleted, whatever the size,
// so that a live run keeps its recent history. Of what is deleted it stays known which sequences
// were stored: a report sent again is still a duplicate.
#ifndef GRADWARDEN_DAEMON_STORE_RETENTION_H_
#define GRADWARDEN_DAEMON_STORE_RETENTION_H_

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/store/sqlite.h"

namespace gradwarden::store {

struct RetentionLimits {
  std::uint64_t max_age_seconds = 0;  // 0: kept for ever
  std::uint64_t max_bytes = 0;        // of the history's pages in use; 0: without bound
};

struct RetentionOptions {
  RetentionLimits limits;
  std::chrono::milliseconds interval{60000};
  std::uint64_t protected_seconds = 3600;
};

// What one pass did.
struct Pruned {
  std::uint64_t segments = 0;
  std::uint64_t reports = 0;
  std::uint64_t bytes_in_use = 0;
  bool above_limit = false;  // still, since all that is left is too young
};

class Retention {
 public:
  using Clock = std::function<std::uint64_t()>;  // Unix nanoseconds
  using Observer = std::function<void(const absl::StatusOr<Pruned>&)>;

  // `path` is that of the history. The observer is called after each pass, by the thread.
  static absl::StatusOr<std::unique_ptr<Retention>> open(const std::string& path,
                                                         const RetentionOptions& options,
                                                         Clock clock, Observer observer);
  ~Retention();
  Retention(const Retention&) = delete;
  Retention& operator=(const Retention&) = delete;

  // From the next pass on. Any thread.
  void set_limits(const RetentionLimits& limits);
  // Begins the thread; before it pass() may be called by hand.
  void start();
  absl::StatusOr<Pruned> pass();

 private:
  Retention(Connection connection, const RetentionOptions& options, Clock clock, Observer observer);
  void run();
  // Notes which segments are there by now, so that their age is known later.
  absl::Status note_time(std::uint64_t now_ns);
  // The highest id of the segments stored before that time; 0: none, or not known.
  absl::StatusOr<std::int64_t> newest_before(std::uint64_t time_ns);
  // Deletes up to a few of the segments with ids up to `newest`. False: there was none.
  absl::StatusOr<bool> delete_some(std::int64_t newest, Pruned& pruned);
  bool pause();
  absl::StatusOr<std::uint64_t> bytes_in_use();

  Connection connection_;
  const RetentionOptions options_;
  const Clock clock_;
  const Observer observer_;
  std::atomic<std::uint64_t> max_age_seconds_;
  std::atomic<std::uint64_t> max_bytes_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;                            // guarded by mutex_
  std::chrono::steady_clock::duration last_took_{};  // of delete_some()
  std::thread thread_;
};

}  // namespace gradwarden::store

#endif  // GRADWARDEN_DAEMON_STORE_RETENTION_H_
