// Checkpoints that were completed and not reported yet. Thread-safe; never touched by the trainer's
// step.
#ifndef GRADWARDEN_CLIENT_REPORTER_CHECKPOINT_LIST_H_
#define GRADWARDEN_CLIENT_REPORTER_CHECKPOINT_LIST_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <vector>

namespace gradwarden::reporter {

class CheckpointList {
 public:
  void add(std::uint64_t step) {
    const std::lock_guard lock(mutex_);
    if (steps_.size() == kMost) steps_.pop_front();
    steps_.push_back(step);
  }
  // Takes the oldest, at most so many.
  std::vector<std::uint64_t> take(std::size_t most) {
    const std::lock_guard lock(mutex_);
    const auto end = steps_.begin() + static_cast<std::ptrdiff_t>(std::min(most, steps_.size()));
    std::vector<std::uint64_t> taken(steps_.begin(), end);
    steps_.erase(steps_.begin(), end);
    return taken;
  }

 private:
  static constexpr std::size_t kMost = 1024;  // beyond it the oldest are forgotten
  std::mutex mutex_;
  std::deque<std::uint64_t> steps_;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_CHECKPOINT_LIST_H_
