#include "daemon/ingest/interval_set.h"

#include <algorithm>

namespace gradwarden::ingest {

bool IntervalSet::insert(std::uint64_t value) {
  if (ranges_.empty() || value > ranges_.back().second) {
    if (!ranges_.empty() && value == ranges_.back().second + 1) {
      ranges_.back().second = value;
    } else {
      ranges_.emplace_back(value, value);
    }
    return true;
  }
  // The first range that ends at or after the value.
  const auto at = std::lower_bound(
      ranges_.begin(), ranges_.end(), value,
      [](const Range& range, std::uint64_t wanted) { return range.second < wanted; });
  if (at->first <= value) return false;
  const bool joins_next = at->first == value + 1;
  const bool joins_previous = at != ranges_.begin() && std::prev(at)->second + 1 == value;
  if (joins_next && joins_previous) {
    std::prev(at)->second = at->second;
    ranges_.erase(at);
  } else if (joins_next) {
    at->first = value;
  } else if (joins_previous) {
    std::prev(at)->second = value;
  } else {
    ranges_.emplace(at, value, value);
  }
  return true;
}

bool IntervalSet::contains(std::uint64_t value) const {
  const auto at = std::lower_bound(
      ranges_.begin(), ranges_.end(), value,
      [](const Range& range, std::uint64_t wanted) { return range.second < wanted; });
  return at != ranges_.end() && at->first <= value;
}

}  // namespace gradwarden::ingest
