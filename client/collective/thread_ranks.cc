#include <condition_variable>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "gradwarden/collective.h"
#include "gradwarden/error.h"

namespace gradwarden {
namespace {

// Where the ranks of one process meet. Each exchange has two meetings: all have posted, all have
// copied.
class Meeting {
 public:
  Meeting(int size, std::chrono::milliseconds timeout)
      : timeout_(timeout), posted_(static_cast<std::size_t>(size)) {}

  bool all_gather(int rank, const void* send, void* receive, std::size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      posted_[static_cast<std::size_t>(rank)] = {send, bytes};
    }
    if (!arrive(rank)) return false;
    auto* out = static_cast<unsigned char*>(receive);
    bool same_size = true;
    for (const Post& post : posted_) {  // stable between the two meetings
      same_size = same_size && post.bytes == bytes;
      if (same_size && bytes != 0) std::memcpy(out, post.data, bytes);
      out += bytes;
    }
    if (!same_size) fail("rank " + std::to_string(rank) + ": the ranks sent different sizes");
    return arrive(rank) && same_size;
  }

  std::string error() {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  struct Post {
    const void* data = nullptr;
    std::size_t bytes = 0;
  };

  bool arrive(int rank) {
    std::unique_lock lock(mutex_);
    if (!error_.empty()) return false;
    if (++arrived_ == posted_.size()) {
      arrived_ = 0;
      ++generation_;
      met_.notify_all();
      return true;
    }
    const std::uint64_t mine = generation_;
    const bool met =
        met_.wait_for(lock, timeout_, [&] { return generation_ != mine || !error_.empty(); });
    if (generation_ != mine) return true;
    if (!met) error_ = "rank " + std::to_string(rank) + " waited in vain for the other ranks";
    met_.notify_all();
    return false;
  }

  void fail(const std::string& error) {
    const std::lock_guard lock(mutex_);
    if (error_.empty()) error_ = error;
    met_.notify_all();
  }

  const std::chrono::milliseconds timeout_;
  std::mutex mutex_;
  std::condition_variable met_;
  std::vector<Post> posted_;
  std::size_t arrived_ = 0;
  std::uint64_t generation_ = 0;
  std::string error_;
};

class ThreadRank final : public Collective {
 public:
  ThreadRank(Meeting& meeting, int rank, int size) : meeting_(meeting), rank_(rank), size_(size) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  bool all_gather(const void* send, void* receive, std::size_t bytes) noexcept override {
    return meeting_.all_gather(rank_, send, receive, bytes);
  }
  std::string last_error() const override { return meeting_.error(); }

 private:
  Meeting& meeting_;
  int rank_;
  int size_;
};

}  // namespace

struct ThreadRanks::Impl {
  Impl(int size, std::chrono::milliseconds timeout) : meeting(size, timeout) {
    for (int rank = 0; rank < size; ++rank) {
      ranks.push_back(std::make_unique<ThreadRank>(meeting, rank, size));
    }
  }
  Meeting meeting;
  std::vector<std::unique_ptr<ThreadRank>> ranks;
};

ThreadRanks::ThreadRanks(int size, std::chrono::milliseconds timeout) {
  if (size < 1) throw Error("collective: size " + std::to_string(size) + "; allowed: 1 or more");
  impl_ = std::make_unique<Impl>(size, timeout);
}

ThreadRanks::~ThreadRanks() = default;

Collective& ThreadRanks::rank(int rank) {
  if (rank < 0 || rank >= static_cast<int>(impl_->ranks.size())) {
    throw Error("collective: rank " + std::to_string(rank) + "; allowed: 0 to " +
                std::to_string(impl_->ranks.size() - 1));
  }
  return *impl_->ranks[static_cast<std::size_t>(rank)];
}

}  // namespace gradwarden
