// One rank whose own gradient, before any reduction, is far from all others': bad data on it, a
// wrong scale, or ill hardware. In the log domain, against the median of the ranks: exactly one
// rank is more than 4 times away from it, in two observed steps in a row, or more than 16 times in
// one, while every other one is within a factor of 2. Where several ranks are far apart, the layout
// or the batch is what differs, and nothing is said; nor with fewer than 3 ranks, which have no
// majority.
//
// Not thread-safe; owned by DefaultDetector.
#ifndef GRADWARDEN_DAEMON_DETECT_RANK_OUTLIER_DETECTOR_H_
#define GRADWARDEN_DAEMON_DETECT_RANK_OUTLIER_DETECTOR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "daemon/detect/detector.h"
#include "daemon/detect/incident.h"

namespace gradwarden::detect {

class RankOutlierDetector {
 public:
  explicit RankOutlierDetector(std::uint32_t quiet_steps);

  void observe(const Step& step, std::uint64_t& next_key, std::vector<Finding>& findings);
  void finish(std::vector<Finding>& findings) { outlier_.end(findings); }
  const Incident* open() const { return outlier_.open(); }

  void save(StateWriter& out) const;
  bool restore(StateReader& in);

 private:
  struct Outlier {
    std::uint32_t rank = 0;
    bool above = true;
    double factor = 1;  // away from the median, 1 or more
    double median = 0;
  };
  // The one rank that stands out, if there is exactly one.
  std::optional<Outlier> find(const Step& step);
  void flag(const Step& step, const Outlier& found, std::uint64_t& next_key,
            std::vector<Finding>& findings);

  IncidentTracker outlier_;
  // The rank that stood out in the last observed step, and since when.
  std::optional<std::uint32_t> suspect_;
  std::uint64_t suspect_step_ = 0;
  std::uint64_t suspect_time_ns_ = 0;
  std::vector<double> sorted_;  // scratch
};

}  // namespace gradwarden::detect

#endif  // GRADWARDEN_DAEMON_DETECT_RANK_OUTLIER_DETECTOR_H_
