// The groups of a run that /metrics shows: all of them where there are few, else those that are of
// interest, so that a model of thousands of layers costs a bounded number of series.
//
// Of interest is a group whose norm lies far from its own slow average. A group that is shown stays
// until another one is much more so: series that come and go are of no use to a dashboard.
//
// Plain values; its owner's thread only.
#ifndef GRADWARDEN_DAEMON_METRICS_GROUP_NORMS_H_
#define GRADWARDEN_DAEMON_METRICS_GROUP_NORMS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gradwarden::metrics {

class GroupNorms {
 public:
  static constexpr std::size_t kMaxShown = 64;

  // The norms of one step by index of group; not finite ones are shown and not averaged. A number
  // of groups other than before starts again.
  void observe(const double* norms, std::size_t count);

  // Index and last norm of each group that is shown, by index.
  const std::vector<std::pair<std::uint32_t, double>>& shown() const { return shown_; }

 private:
  struct Group {
    double log_mean = 0;
    std::uint64_t seen = 0;
    double interest = 0;  // how far from its average: the largest of late, which fades
    bool shown = false;
  };
  void change_one();

  std::vector<Group> groups_;
  std::vector<std::pair<std::uint32_t, double>> shown_;
};

}  // namespace gradwarden::metrics

#endif  // GRADWARDEN_DAEMON_METRICS_GROUP_NORMS_H_
