// A set of sequences, kept as joined inclusive ranges: what makes "counted exactly once" cheap.
// In-order arrival keeps it at one range. Not thread-safe.
#ifndef GRADWARDEN_DAEMON_INGEST_INTERVAL_SET_H_
#define GRADWARDEN_DAEMON_INGEST_INTERVAL_SET_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace gradwarden::ingest {

class IntervalSet {
 public:
  using Range = std::pair<std::uint64_t, std::uint64_t>;

  IntervalSet() = default;
  // Ranges in order, neither overlapping nor touching.
  explicit IntervalSet(std::vector<Range> ranges) : ranges_(std::move(ranges)) {}

  // True if the value was not in the set.
  bool insert(std::uint64_t value);
  bool contains(std::uint64_t value) const;
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

}  // namespace gradwarden::ingest

#endif  // GRADWARDEN_DAEMON_INGEST_INTERVAL_SET_H_
