// How long to wait before the next try: exponential with full jitter (proto/CONTRACT.md).
#ifndef GRADWARDEN_CLIENT_REPORTER_BACKOFF_H_
#define GRADWARDEN_CLIENT_REPORTER_BACKOFF_H_

#include <algorithm>
#include <chrono>
#include <random>

namespace gradwarden::reporter {

class Backoff {
 public:
  using Duration = std::chrono::milliseconds;
  static constexpr Duration kFirst{100};
  static constexpr Duration kLongest{30000};

  explicit Backoff(std::uint64_t seed) : random_(seed) {}

  // Uniform between 0 and a bound that doubles with each call, up to kLongest.
  Duration next() {
    std::uniform_int_distribution<Duration::rep> wait(0, bound_.count());
    bound_ = std::min(bound_ * 2, kLongest);
    return Duration(wait(random_));
  }
  void reset() { bound_ = kFirst; }
  void lengthen() { bound_ = kLongest; }  // for errors that only a person mends

 private:
  std::mt19937_64 random_;
  Duration bound_ = kFirst;
};

}  // namespace gradwarden::reporter

#endif  // GRADWARDEN_CLIENT_REPORTER_BACKOFF_H_
