// The last N values of a signal, kept in order of arrival and in order of size, so that their
// quantiles cost a look. Fixed memory, no allocation.
#ifndef GRADWARDEN_DAEMON_DETECT_SORTED_WINDOW_H_
#define GRADWARDEN_DAEMON_DETECT_SORTED_WINDOW_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "daemon/detect/state_bytes.h"

namespace gradwarden::detect {

template <std::size_t kCapacity>
class SortedWindow {
 public:
  std::size_t size() const { return size_; }

  // `value` is a number, not NaN. The oldest leaves when the window is full.
  void push(double value) {
    double* const begin = sorted_.data();
    double* const place = begin + below(value);
    if (size_ == kCapacity) {
      // What lies between the oldest's place and the new one's moves by one.
      double* const gap = begin + below(arrived_[next_]);
      if (gap < place) {
        std::copy(gap + 1, place, gap);
        *(place - 1) = value;
      } else {
        std::copy_backward(place, gap, gap + 1);
        *place = value;
      }
    } else {
      std::copy_backward(place, begin + size_, begin + size_ + 1);
      *place = value;
      ++size_;
    }
    arrived_[next_] = value;
    next_ = (next_ + 1) % kCapacity;
  }

  void clear() { size_ = next_ = 0; }

  // Needs a value. Of an even number of values the mean of the middle two.
  double median() const {
    const std::size_t half = size_ / 2;
    return size_ % 2 == 1 ? sorted_[half] : 0.5 * (sorted_[half - 1] + sorted_[half]);
  }

  // The value below which this share of all lies; needs a value.
  double quantile(double share) const {
    return sorted_[std::min(size_ - 1,
                            static_cast<std::size_t>(static_cast<double>(size_) * share))];
  }

  // The median of the distances from `centre`; needs a value. The nearest values lie side by side:
  // their first one is searched for.
  double median_distance(double centre) const {
    const std::size_t nearest = size_ / 2 + 1;
    std::size_t first = 0;
    for (std::size_t left = size_ - nearest; left > 0;) {
      const std::size_t half = (left + 1) / 2;
      const std::size_t at = first + half - 1;
      first += centre - sorted_[at] > sorted_[at + nearest] - centre ? half : 0;
      left -= half;
    }
    return std::max(centre - sorted_[first], sorted_[first + nearest - 1] - centre);
  }

  void save(StateWriter& out) const {
    out.value(static_cast<std::uint32_t>(size_));
    for (std::size_t i = 0; i < size_; ++i) {
      out.value(arrived_[(next_ + kCapacity - size_ + i) % kCapacity]);
    }
  }
  bool restore(StateReader& in) {
    clear();
    const auto count = in.value<std::uint32_t>();
    if (count > kCapacity) return false;
    for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
      const auto value = in.value<double>();
      if (value != value) return false;
      push(value);
    }
    return in.ok();
  }

 private:
  // How many values are smaller. Without branches: which way each comparison goes is chance.
  std::size_t below(double value) const {
    std::size_t first = 0;
    for (std::size_t left = size_; left > 0;) {
      const std::size_t half = (left + 1) / 2;
      first += sorted_[first + half - 1] < value ? half : 0;
      left -= half;
    }
    return first;
  }

  std::size_t size_ = 0;
  std::size_t next_ = 0;
  std::array<double, kCapacity> arrived_{};
  std::array<double, kCapacity> sorted_{};
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_SORTED_WINDOW_H_
