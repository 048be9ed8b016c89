// Drains a source every few milliseconds where no sink does: for sinks without a thread of their
// own, and to watch the communicator where there is no sink at all.
#ifndef GRADWARDEN_CLIENT_GUARD_CUDA_POLL_THREAD_H_
#define GRADWARDEN_CLIENT_GUARD_CUDA_POLL_THREAD_H_

#include <condition_variable>
#include <mutex>
#include <thread>

#include "gradwarden/step_record.h"

namespace gradwarden::guard {

class PollThread {
 public:
  PollThread() = default;
  ~PollThread() { stop(); }
  PollThread(const PollThread&) = delete;
  PollThread& operator=(const PollThread&) = delete;

  // `sink` may be null: records are then let go.
  void start(StepSource& source, StepSink* sink);
  // Returns when drain() runs no more.
  void stop();
  bool running() const { return thread_.joinable(); }

 private:
  void run(StepSource& source, StepSink& sink);

  std::mutex mutex_;
  std::condition_variable stop_;
  bool stopping_ = false;
  std::thread thread_;
};

// Takes records and lets them go.
class NoSink final : public StepSink {
 public:
  void begin(const RunShape&) override {}
  void submit(const StepRecord&) noexcept override {}
};

}  // namespace gradwarden::guard

#endif  // GRADWARDEN_CLIENT_GUARD_CUDA_POLL_THREAD_H_
